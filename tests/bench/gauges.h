/* What wsload measures with: latencies, and from /proc what the server uses. */
#ifndef GAUGES_H
#define GAUGES_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Latencies: a histogram whose buckets are less than 1% wide, so that it costs the same however many there are. */

enum { SUB_BITS = 7, SUB = 1 << SUB_BITS };
static uint64_t histogram[64 * SUB], latencies, longest_ns;

static void record(uint64_t ns) {
    int shift = 63 - __builtin_clzll(ns | 1) - SUB_BITS;
    histogram[shift <= 0 ? ns : (uint64_t)shift * SUB + (ns >> shift)]++;
    latencies++;
    if (ns > longest_ns) longest_ns = ns;
}

static double quantile_us(double q) {
    uint64_t wanted = (uint64_t)(q * latencies), seen = 0;
    for (uint64_t i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (seen > wanted) {
            uint64_t shift = i < 2 * SUB ? 0 : i / SUB - 1;
            return ((i - shift * SUB) << shift) / 1e3;
        }
    }
    return longest_ns / 1e3;
}

/* Watching the server, from /proc */

static double cpu_s(int pid) {
    char name[64], stat[1024];
    unsigned long user = 0, system = 0;
    snprintf(name, sizeof name, "/proc/%d/stat", pid);
    FILE *file = fopen(name, "r");
    if (!file) return 0;
    stat[fread(stat, 1, sizeof stat - 1, file)] = 0;
    fclose(file);
    char *end = strrchr(stat, ')');
    if (end) sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (user + system) / (double)sysconf(_SC_CLK_TCK);
}

static long rss_kib(int pid) {
    char name[64];
    long pages = 0;
    snprintf(name, sizeof name, "/proc/%d/statm", pid);
    FILE *file = fopen(name, "r");
    if (!file) return 0;
    if (fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

typedef struct { double cpu_s; long rss_kib; } Usage;

static void add_tree(int pid, Usage *usage) {
    char name[320];
    usage->cpu_s += cpu_s(pid);
    usage->rss_kib += rss_kib(pid);
    snprintf(name, sizeof name, "/proc/%d/task", pid);
    DIR *threads = opendir(name);
    if (!threads) return;
    for (struct dirent *entry; (entry = readdir(threads));) {
        int child;
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "/proc/%d/task/%.16s/children", pid, entry->d_name);
        FILE *file = fopen(name, "r");
        if (!file) continue;
        while (fscanf(file, "%d", &child) == 1) add_tree(child, usage);
        fclose(file);
    }
    closedir(threads);
}

static Usage usage_of_tree(int pid) {
    Usage usage = {0, 0};
    if (pid) add_tree(pid, &usage);
    return usage;
}

/* What all programs on the machine have used together. */
static double machine_cpu_s(void) {
    unsigned long user = 0, nice = 0, system = 0;
    FILE *file = fopen("/proc/stat", "r");
    if (!file) return 0;
    if (fscanf(file, "cpu %lu %lu %lu", &user, &nice, &system) != 3) user = nice = system = 0;
    fclose(file);
    return (user + nice + system) / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu_s(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

#endif
