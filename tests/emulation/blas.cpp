/* The products of cuBLAS that are in use, over the CPU's BLAS: column-major as there, bf16 by way of float. */
#include <cblas.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <string.h>

#include <set>
#include <vector>

#include "emulation/emulation.h"

namespace emulation {

struct blas_handle {
    cudaStream_t stream = nullptr;
    cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
};
static std::set<const void *> &handles = *new std::set<const void *>;

struct operand {
    const char *name;
    const void *at; /* of the first product; of several that stand anywhere: an array of pointers */
    cudaDataType type;
    int64_t ld, rows, columns; /* in memory: column-major [ld, columns] */
    int64_t stride;
};

struct gemm_work : work {
    bool transpose_a, transpose_b;
    int64_t m, n, k, count;
    operand a, b, c;
    bool pointers;                                       /* operands are arrays of pointers */
    const float *alpha_at = nullptr, *beta_at = nullptr; /* the device's; NULL: the values below */
    float alpha, beta;
    bool advance() override;
};

static size_t size_of(cudaDataType type) { return type == CUDA_R_16BF ? 2 : 4; }

static int64_t extent(const operand &o) { return o.columns == 0 ? 0 : (o.columns - 1) * o.ld + o.rows; }

static char *operand_at(const operand &o, int64_t i, bool pointers) {
    const void *at = pointers ? ((const void *const *)o.at)[i] : (const char *)o.at + i * o.stride * size_of(o.type);
    if (!device_reaches(at, (size_t)extent(o) * size_of(o.type)))
        die("cuBLAS: product %lld: operand %s at %p has not %lld elements in device memory", (long long)i, o.name, at,
            (long long)extent(o));
    return (char *)const_cast<void *>(at);
}

/* The operand as floats, at its own leading dimension. */
static const float *as_float(const operand &o, const char *at, std::vector<float> &space) {
    if (o.type == CUDA_R_32F) return (const float *)at;
    space.resize((size_t)extent(o));
    for (int64_t column = 0; column < o.columns; column++)
        for (int64_t row = 0; row < o.rows; row++)
            space[(size_t)(column * o.ld + row)] = __bfloat162float(((const __nv_bfloat16 *)at)[column * o.ld + row]);
    return space.data();
}

bool gemm_work::advance() {
    if (alpha_at) alpha = *alpha_at, beta = *beta_at;
    std::vector<float> a_space, b_space, c_space;
    for (int64_t i = 0; i < count && m > 0 && n > 0; i++) {
        char *a_at = operand_at(a, i, pointers), *b_at = operand_at(b, i, pointers), *c_at = operand_at(c, i, pointers);
        float *out = (float *)c_at;
        if (c.type == CUDA_R_16BF) {
            if (beta != 0)
                as_float(c, c_at, c_space);
            else
                c_space.resize((size_t)extent(c));
            out = c_space.data();
        }
        for (int64_t column = 0; beta == 0 && column < n; column++) /* nobody reads what was there */
            memset(out + column * c.ld, 0, (size_t)m * sizeof *out);
        if (k > 0)
            cblas_sgemm(CblasColMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
                        (int)m, (int)n, (int)k, alpha, as_float(a, a_at, a_space), (int)a.ld,
                        as_float(b, b_at, b_space), (int)b.ld, beta, out, (int)c.ld);
        else
            for (int64_t column = 0; column < n; column++) cblas_sscal((int)m, beta, out + column * c.ld, 1);
        for (int64_t column = 0; c.type == CUDA_R_16BF && column < n; column++)
            for (int64_t row = 0; row < m; row++)
                ((__nv_bfloat16 *)c_at)[column * c.ld + row] = __float2bfloat16_rn(out[column * c.ld + row]);
    }
    if (emulation_count_gemm)
        emulation_count_gemm(n, m, k, count, (int)size_of(a.type), (int)size_of(c.type), beta != 0);
    return true;
}

static bool is_float32(cublasComputeType_t type) {
    return type == CUBLAS_COMPUTE_32F || type == CUBLAS_COMPUTE_32F_PEDANTIC || type == CUBLAS_COMPUTE_32F_FAST_16F ||
           type == CUBLAS_COMPUTE_32F_FAST_16BF || type == CUBLAS_COMPUTE_32F_FAST_TF32;
}

static bool is_type(cudaDataType type) { return type == CUDA_R_32F || type == CUDA_R_16BF; }

static cublasStatus_t gemm(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int64_t m, int64_t n,
                           int64_t k, const void *alpha, operand a, operand b, const void *beta, operand c,
                           int64_t count, bool pointers, cublasComputeType_t compute) {
    if (!handles.count(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!is_float32(compute) || !is_type(a.type) || a.type != b.type || !is_type(c.type) ||
        (a.type == CUDA_R_32F && c.type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    blas_handle *h = (blas_handle *)handle;
    gemm_work *work = new gemm_work;
    work->transpose_a = op_a != CUBLAS_OP_N;
    work->transpose_b = op_b != CUBLAS_OP_N;
    work->m = m, work->n = n, work->k = k, work->count = count;
    a.name = "A", b.name = "B", c.name = "C";
    a.rows = work->transpose_a ? k : m, a.columns = work->transpose_a ? m : k;
    b.rows = work->transpose_b ? n : k, b.columns = work->transpose_b ? k : n;
    c.rows = m, c.columns = n;
    work->a = a, work->b = b, work->c = c;
    work->pointers = pointers;
    bool device = h->pointer_mode == CUBLAS_POINTER_MODE_DEVICE;
    bool wrong = m < 0 || n < 0 || k < 0 || count < 0 || !alpha || !beta || a.ld < (a.rows > 1 ? a.rows : 1) ||
                 b.ld < (b.rows > 1 ? b.rows : 1) || c.ld < (m > 1 ? m : 1);
    if (wrong || (device && (!device_reaches(alpha, sizeof(float)) || !device_reaches(beta, sizeof(float))))) {
        delete work;
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (device)
        work->alpha_at = (const float *)alpha, work->beta_at = (const float *)beta;
    else
        work->alpha = *(const float *)alpha, work->beta = *(const float *)beta;
    enqueue(h->stream, work);
    return CUBLAS_STATUS_SUCCESS;
}

static operand at(const void *memory, cudaDataType type, int64_t ld, int64_t stride) {
    return {"", memory, type, ld, 0, 0, stride};
}

} // namespace emulation

using namespace emulation;

cublasStatus_t cublasCreate(cublasHandle_t *out) {
    first_use();
    *out = (cublasHandle_t) new blas_handle;
    handles.insert(*out);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    if (!handles.erase(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete (blas_handle *)handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    if (!handles.count(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    ((blas_handle *)handle)->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t *stream) {
    if (!handles.count(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    *stream = ((blas_handle *)handle)->stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode) {
    if (!handles.count(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    ((blas_handle *)handle)->pointer_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

/* Of no consequence here: products of floats are exact to float, and need no workspace. */
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t) {
    return handles.count(handle) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *workspace, size_t bytes) {
    if (!handles.count(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    return device_reaches(workspace, bytes) && (uintptr_t)workspace % 256 == 0 ? CUBLAS_STATUS_SUCCESS
                                                                               : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasGetVersion(cublasHandle_t, int *version) {
    *version = CUBLAS_VERSION;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "the cuBLAS operation was successful";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "the cuBLAS library was not initialized";
    case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality requested is not supported";
    default: return "unknown cuBLAS status";
    }
}

const char *cublasGetStatusName(cublasStatus_t status) { return cublasGetStatusString(status); }

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
                           const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta,
                           float *c, int ldc) {
    return gemm(handle, op_a, op_b, m, n, k, alpha, at(a, CUDA_R_32F, lda, 0), at(b, CUDA_R_32F, ldb, 0), beta,
                at(c, CUDA_R_32F, ldc, 0), 1, false, CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                                         int n, int k, const float *alpha, const float *a, int lda, long long stride_a,
                                         const float *b, int ldb, long long stride_b, const float *beta, float *c,
                                         int ldc, long long stride_c, int count) {
    return gemm(handle, op_a, op_b, m, n, k, alpha, at(a, CUDA_R_32F, lda, stride_a), at(b, CUDA_R_32F, ldb, stride_b),
                beta, at(c, CUDA_R_32F, ldc, stride_c), count, false, CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
                            const void *alpha, const void *a, cudaDataType type_a, int lda, const void *b,
                            cudaDataType type_b, int ldb, const void *beta, void *c, cudaDataType type_c, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t) {
    return gemm(handle, op_a, op_b, m, n, k, alpha, at(a, type_a, lda, 0), at(b, type_b, ldb, 0), beta,
                at(c, type_c, ldc, 0), 1, false, compute);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                                          int n, int k, const void *alpha, const void *a, cudaDataType type_a, int lda,
                                          long long stride_a, const void *b, cudaDataType type_b, int ldb,
                                          long long stride_b, const void *beta, void *c, cudaDataType type_c, int ldc,
                                          long long stride_c, int count, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
    return gemm(handle, op_a, op_b, m, n, k, alpha, at(a, type_a, lda, stride_a), at(b, type_b, ldb, stride_b), beta,
                at(c, type_c, ldc, stride_c), count, false, compute);
}

cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n,
                                   int k, const void *alpha, const void *const a[], cudaDataType type_a, int lda,
                                   const void *const b[], cudaDataType type_b, int ldb, const void *beta,
                                   void *const c[], cudaDataType type_c, int ldc, int count,
                                   cublasComputeType_t compute, cublasGemmAlgo_t) {
    size_t bytes = (size_t)(count > 0 ? count : 0) * sizeof(void *);
    if (!device_reaches(a, bytes) || !device_reaches(b, bytes) || !device_reaches(c, bytes))
        return CUBLAS_STATUS_INVALID_VALUE;
    return gemm(handle, op_a, op_b, m, n, k, alpha, at(a, type_a, lda, 0), at(b, type_b, ldb, 0), beta,
                at(c, type_c, ldc, 0), count, true, compute);
}
