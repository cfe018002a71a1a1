/* A libcuda.so.1 without a GPU: what engine/backends calls, itself or through pycuda, and no more.
 *
 * Memory is the host's; streams do at once what they are given, or note it while they record a
 * graph. It checks handles and counts what is alive. $FAKE_CUDA_FAIL names a call that fails, with
 * the code in $FAKE_CUDA_CODE. The prototypes are those of the driver API (cuda.h), in its names.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef unsigned long long CUdeviceptr;

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400 };
enum { MOST_COPIES = 64, MOST_CONTEXTS = 64 };
enum { MAGIC_STREAM = 0x57, MAGIC_EVENT = 0xE7, MAGIC_GRAPH = 0x6A, MAGIC_EXEC = 0x6E };

static const size_t TOTAL = (size_t)1 << 30;

typedef struct {
  void *target;
  const void *source;
  size_t n;
} Copy;

typedef struct {
  int magic, n_copies;
  Copy copies[MOST_COPIES];
} Graph;

typedef struct {
  int magic;
  Graph *recording;
} Stream;

typedef struct {
  int magic;
} Event;

/* Read by the tests through ctypes. */
int fake_live, fake_retained, fake_depth, fake_waits;
static size_t used;
static void *stack[MOST_CONTEXTS];
static int primary;

static CUresult injected(const char *name) {
  const char *wanted = getenv("FAKE_CUDA_FAIL");
  return wanted && !strcmp(wanted, name) ? atoi(getenv("FAKE_CUDA_CODE")) : OK;
}

#define BEGIN                                    \
  do {                                           \
    CUresult fault_ = injected(__func__);        \
    if (fault_) return fault_;                   \
  } while (0)
#define NEEDS_CONTEXT                            \
  do {                                           \
    BEGIN;                                       \
    if (!fake_depth) return INVALID_CONTEXT;     \
  } while (0)

CUresult cuInit(unsigned flags) {
  BEGIN;
  return flags ? INVALID_VALUE : OK;
}

CUresult cuDriverGetVersion(int *version) {
  BEGIN;
  *version = 13020;
  return OK;
}

CUresult cuGetErrorString(CUresult code, const char **text) {
  *text = code == OUT_OF_MEMORY ? "out of memory"
          : code == 100         ? "no CUDA-capable device is detected"
          : code == 700         ? "an illegal memory access was encountered"
                                : "an error";
  return OK;
}

CUresult cuDeviceGetCount(int *count) {
  BEGIN;
  *count = 1;
  return OK;
}

CUresult cuDeviceGet(int *device, int ordinal) {
  BEGIN;
  *device = ordinal;
  return ordinal ? INVALID_VALUE : OK;
}

CUresult cuDeviceGetName(char *name, int n, int device) {
  BEGIN;
  snprintf(name, (size_t)n, "Fake %d", device);
  return OK;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, int device) {
  BEGIN;
  *major = 8;
  *minor = 9 + device;
  return OK;
}

/* FFmpeg's decoder refuses the context unless it was set up with just these flags. */
CUresult cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
  BEGIN;
  (void)device;
  return flags == 4 && fake_retained == 0 ? OK : INVALID_VALUE;
}

CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
  BEGIN;
  (void)device;
  fake_retained++;
  *context = &primary;
  return OK;
}

/* As the real one, it takes nothing off the stack. */
CUresult cuDevicePrimaryCtxRelease_v2(int device) {
  BEGIN;
  (void)device;
  return fake_retained-- > 0 ? OK : INVALID_CONTEXT;
}

CUresult cuCtxPushCurrent_v2(void *context) {
  BEGIN;
  if (fake_depth == MOST_CONTEXTS || context != &primary) return INVALID_CONTEXT;
  stack[fake_depth++] = context;
  return OK;
}

CUresult cuCtxPopCurrent_v2(void **context) {
  NEEDS_CONTEXT;
  *context = stack[--fake_depth];
  return OK;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  NEEDS_CONTEXT;
  *free_bytes = TOTAL - used;
  *total = TOTAL;
  return OK;
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t n) {
  NEEDS_CONTEXT;
  if (n > TOTAL - used) return OUT_OF_MEMORY;
  size_t *block = aligned_alloc(256, 256 + (n + 255) / 256 * 256);
  if (!block) return OUT_OF_MEMORY;
  *block = n;
  used += n;
  fake_live++;
  *pointer = (CUdeviceptr)block + 256;
  return OK;
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
  NEEDS_CONTEXT;
  size_t *block = (size_t *)(pointer - 256);
  used -= *block;
  fake_live--;
  free(block);
  return OK;
}

CUresult cuMemHostAlloc(void **pointer, size_t n, unsigned flags) {
  NEEDS_CONTEXT;
  (void)flags;
  *pointer = malloc(n);
  fake_live++;
  return *pointer ? OK : OUT_OF_MEMORY;
}

CUresult cuMemFreeHost(void *pointer) {
  NEEDS_CONTEXT;
  fake_live--;
  free(pointer);
  return OK;
}

CUresult cuStreamCreate(void **stream, unsigned flags) {
  NEEDS_CONTEXT;
  if (flags != 1) return INVALID_VALUE; /* one that waits for the default stream */
  Stream *made = calloc(1, sizeof *made);
  made->magic = MAGIC_STREAM;
  fake_live++;
  *stream = made;
  return OK;
}

static Stream *as_stream(void *stream) {
  Stream *given = stream;
  return given && given->magic == MAGIC_STREAM ? given : NULL;
}

CUresult cuStreamDestroy_v2(void *stream) {
  NEEDS_CONTEXT;
  Stream *given = as_stream(stream);
  if (!given || given->recording) return INVALID_HANDLE;
  given->magic = 0;
  fake_live--;
  free(given);
  return OK;
}

CUresult cuStreamSynchronize(void *stream) {
  NEEDS_CONTEXT;
  Stream *given = as_stream(stream);
  return given && !given->recording ? OK : INVALID_HANDLE;
}

CUresult cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
  NEEDS_CONTEXT;
  (void)flags;
  fake_waits++;
  return as_stream(stream) && ((Event *)event)->magic == MAGIC_EVENT ? OK : INVALID_HANDLE;
}

CUresult cuEventCreate(void **event, unsigned flags) {
  NEEDS_CONTEXT;
  if (flags != 3) return INVALID_VALUE; /* blocking, without timing */
  Event *made = calloc(1, sizeof *made);
  made->magic = MAGIC_EVENT;
  fake_live++;
  *event = made;
  return OK;
}

CUresult cuEventDestroy_v2(void *event) {
  NEEDS_CONTEXT;
  Event *given = event;
  if (given->magic != MAGIC_EVENT) return INVALID_HANDLE;
  given->magic = 0;
  fake_live--;
  free(given);
  return OK;
}

CUresult cuEventRecord(void *event, void *stream) {
  NEEDS_CONTEXT;
  return as_stream(stream) && ((Event *)event)->magic == MAGIC_EVENT ? OK : INVALID_HANDLE;
}

CUresult cuEventSynchronize(void *event) {
  NEEDS_CONTEXT;
  return ((Event *)event)->magic == MAGIC_EVENT ? OK : INVALID_HANDLE;
}

static CUresult copy(void *stream, void *target, const void *source, size_t n) {
  Stream *given = as_stream(stream);
  if (!given) return INVALID_HANDLE;
  if (!given->recording) {
    memcpy(target, source, n);
    return OK;
  }
  if (given->recording->n_copies == MOST_COPIES) return INVALID_VALUE;
  given->recording->copies[given->recording->n_copies++] = (Copy){target, source, n};
  return OK;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t n, void *stream) {
  NEEDS_CONTEXT;
  return copy(stream, (void *)target, source, n);
}

CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t n, void *stream) {
  NEEDS_CONTEXT;
  return copy(stream, target, (void *)source, n);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t n, void *stream) {
  NEEDS_CONTEXT;
  return copy(stream, (void *)target, (void *)source, n);
}

CUresult cuStreamBeginCapture_v2(void *stream, int mode) {
  NEEDS_CONTEXT;
  Stream *given = as_stream(stream);
  if (!given || given->recording || mode != 1) return INVALID_HANDLE;
  given->recording = calloc(1, sizeof(Graph));
  given->recording->magic = MAGIC_GRAPH;
  fake_live++;
  return OK;
}

CUresult cuStreamEndCapture(void *stream, void **graph) {
  NEEDS_CONTEXT;
  Stream *given = as_stream(stream);
  if (!given || !given->recording) return INVALID_HANDLE;
  *graph = given->recording;
  given->recording = NULL;
  return OK;
}

CUresult cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  NEEDS_CONTEXT;
  Graph *given = graph, *made;
  if (given->magic != MAGIC_GRAPH || flags) return INVALID_HANDLE;
  made = malloc(sizeof *made);
  *made = *given;
  made->magic = MAGIC_EXEC;
  fake_live++;
  *executable = made;
  return OK;
}

CUresult cuGraphLaunch(void *executable, void *stream) {
  NEEDS_CONTEXT;
  Graph *given = executable;
  if (given->magic != MAGIC_EXEC || !as_stream(stream)) return INVALID_HANDLE;
  for (int i = 0; i < given->n_copies; i++)
    memcpy(given->copies[i].target, given->copies[i].source, given->copies[i].n);
  return OK;
}

static CUresult destroy(Graph *graph, int magic) {
  if (graph->magic != magic) return INVALID_HANDLE;
  graph->magic = 0;
  fake_live--;
  free(graph);
  return OK;
}

CUresult cuGraphDestroy(void *graph) {
  NEEDS_CONTEXT;
  return destroy(graph, MAGIC_GRAPH);
}

CUresult cuGraphExecDestroy(void *executable) {
  NEEDS_CONTEXT;
  return destroy(executable, MAGIC_EXEC);
}
