/* Where test programs let a rank die, stop or dawdle (tests/cluster). Nothing of it is linked into vqmoe, where the
 * function does not exist and the points do nothing. */
#ifndef VQMOE_FAULT_H
#define VQMOE_FAULT_H

void fault_point(const char *where) __attribute__((weak));
#define FAULT_POINT(where) (fault_point ? fault_point(where) : (void)0)

#endif
