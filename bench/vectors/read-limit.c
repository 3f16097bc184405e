/* What reading costs: sums up a file's bytes in memory by one stream or by several far apart, in one thread or two.
 *
 *   read-limit <file>        reads commands from stdin, answers each with one line of JSON (bench/vectors/contestant.ts)
 *
 * Works: w<bytes>_s<streams>, such as w32_s8: registers of 32 bytes, 8 streams; `pair_` before it lets two threads read
 * one half each, `single_` is the same with one thread that reads both halves, for comparison by the clock.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef uint32_t v16 __attribute__((vector_size(16), aligned(16)));
typedef uint32_t v32 __attribute__((vector_size(32), aligned(32)));
typedef uint32_t v64 __attribute__((vector_size(64), aligned(64)));

/* The sum leaves the program by this, so that no compiler leaves out the reading. */
static volatile uint32_t sink;

/* One stream has four sums and several have one each: an addition never waits for the one before it. */
#define READER(V, STREAMS, SUMS)                                                                        \
  static uint32_t read_##V##_##STREAMS(const char *at, size_t bytes) {                                  \
    size_t part = bytes / (STREAMS) / (SUMS * sizeof(V)) * (SUMS * sizeof(V));                          \
    V sums[(STREAMS) * (SUMS)] = {0};                                                                   \
    for (size_t i = 0; i < part; i += (SUMS) * sizeof(V))                                               \
      _Pragma("GCC unroll 16") for (int s = 0; s < (STREAMS); s++)                                      \
          _Pragma("GCC unroll 4") for (int k = 0; k < (SUMS); k++)                                      \
              sums[s * (SUMS) + k] += *(const V *)(at + s * part + i + k * sizeof(V));                  \
    V all = {0};                                                                                        \
    for (int s = 0; s < (STREAMS) * (SUMS); s++) all += sums[s];                                        \
    uint32_t sum = 0;                                                                                   \
    for (size_t i = 0; i < sizeof(V) / 4; i++) sum += all[i];                                           \
    for (size_t i = (STREAMS)*part; i + 4 <= bytes; i += 4) sum += *(const uint32_t *)(at + i);         \
    return sum;                                                                                         \
  }
#define READERS(V) READER(V, 1, 4) READER(V, 2, 2) READER(V, 4, 1) READER(V, 8, 1) READER(V, 16, 1)
READERS(v16)
READERS(v32)
READERS(v64)

typedef uint32_t (*reader)(const char *, size_t);
static const struct { const char *name; reader read; } readers[] = {
    {"w16_s1", read_v16_1}, {"w16_s2", read_v16_2}, {"w16_s4", read_v16_4}, {"w16_s8", read_v16_8}, {"w16_s16", read_v16_16},
    {"w32_s1", read_v32_1}, {"w32_s2", read_v32_2}, {"w32_s4", read_v32_4}, {"w32_s8", read_v32_8}, {"w32_s16", read_v32_16},
    {"w64_s1", read_v64_1}, {"w64_s2", read_v64_2}, {"w64_s4", read_v64_4}, {"w64_s8", read_v64_8}, {"w64_s16", read_v64_16},
};

static double now_ms(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

struct half { reader read; const char *at; size_t bytes; };
static void *read_half(void *given) {
  struct half *half = given;
  sink += half->read(half->at, half->bytes);
  return NULL;
}

/* Some schedulers keep two short-lived loads on one CPU; threads that are compared by the clock get one each. */
static void keep_on(pthread_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(thread, sizeof set, &set);
}

/* A thread that waits for work: starting one for each call would be measured too. */
static pthread_barrier_t begin, end;
static struct half other;
static void *wait_and_read(void *unused) {
  (void)unused;
  for (;;) {
    pthread_barrier_wait(&begin);
    read_half(&other);
    pthread_barrier_wait(&end);
  }
  return NULL;
}

int main(int count, char **arguments) {
  if (count != 2) { fprintf(stderr, "which file?\n"); return 2; }
  FILE *file = fopen(arguments[1], "rb");
  if (!file) { perror(arguments[1]); return 1; }
  fseek(file, 0, SEEK_END);
  size_t bytes = (size_t)ftell(file);
  rewind(file);
  char *data = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!data || fread(data, 1, bytes, file) != bytes) { fprintf(stderr, "%s cannot be read\n", arguments[1]); return 1; }
  fclose(file);
  pthread_barrier_init(&begin, NULL, 2);
  pthread_barrier_init(&end, NULL, 2);
  pthread_t thread;
  if (pthread_create(&thread, NULL, wait_and_read, NULL)) { fprintf(stderr, "no second thread\n"); return 1; }
  cpu_set_t allowed;
  int cpus[2] = {-1, -1};
  if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE && cpus[1] < 0; cpu++)
      if (CPU_ISSET(cpu, &allowed)) cpus[cpus[0] < 0 ? 0 : 1] = cpu;
  if (cpus[1] >= 0) keep_on(thread, cpus[1]);
  printf("{\"ready\":true,\"facts\":{\"compiler\":\"%s\",\"two_cpus\":%s}}\n", __VERSION__, cpus[1] >= 0 ? "true" : "false");
  fflush(stdout);

  char line[256], work[64];
  int first, calls;
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "%63s %d %d", work, &first, &calls) != 3) { fprintf(stderr, "what is %s?\n", line); return 1; }
    int pair = strncmp(work, "pair_", 5) == 0, single = strncmp(work, "single_", 7) == 0;
    const char *name = work + (pair ? 5 : single ? 7 : 0);
    reader read = NULL;
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
      if (strcmp(readers[i].name, name) == 0) read = readers[i].read;
    if (!read) { printf("{\"error\":\"no work %s\"}\n", work); fflush(stdout); continue; }
    /* Halves begin at a page, as they would in two workers' own memories. */
    size_t half = bytes / 2 / 4096 * 4096;
    if (cpus[1] >= 0 && (pair || single)) keep_on(pthread_self(), cpus[0]);
    printf("{\"calls\":[");
    for (int call = 0; call < calls; call++) {
      double wall = now_ms(CLOCK_MONOTONIC), cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID);
      if (pair) {
        other = (struct half){read, data + half, bytes - half};
        pthread_barrier_wait(&begin);
        sink += read(data, half);
        pthread_barrier_wait(&end);
      } else if (single) {
        sink += read(data, half) + read(data + half, bytes - half);
      } else {
        sink += read(data, bytes);
      }
      wall = now_ms(CLOCK_MONOTONIC) - wall;
      cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
      printf("%s{\"cpu_ms\":%.4f,\"wall_ms\":%.4f}", call ? "," : "", cpu, wall);
    }
    printf("]}\n");
    fflush(stdout);
    if (cpus[1] >= 0) pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
  }
  return 0;
}
