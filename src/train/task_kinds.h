/* Inside src/train only: the kinds of tasks. */
#ifndef VQMOE_TASK_KINDS_H
#define VQMOE_TASK_KINDS_H

#include "train/task.h"

/* Each as task.h says of the function of that name. */
struct task_kind {
    enum status (*open)(struct task *task, const char *from);
    void (*close)(struct task *task);
    enum status (*begin)(struct task *task, struct step *step);
    void (*tell)(const struct task *task, struct progress *progress);
    bool (*seek)(struct task *task, const struct progress *progress);
    enum status (*read)(struct task *task, const struct step *step);
    void (*queue)(struct task *task, struct step *step, int64_t number, struct routes *routes);
    void (*advance)(struct task *task, struct step *step);
    bool (*has)(const struct task *task, enum split split);
    enum status (*score)(struct task *task, struct score *score, struct model *model, enum split split, int64_t step,
                         struct pass_memory *arenas, const struct control *control);
    int64_t (*seen)(const struct task *task, int64_t steps);
    void (*describe)(const struct task *task);
    enum status (*report)(struct task *task, const char *folder); /* NULL: nothing */
};

extern const struct task_kind task_language, task_classifier;

#endif
