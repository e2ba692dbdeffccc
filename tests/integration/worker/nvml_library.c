/* NVIDIA's management library, with its binary interface, over GPUs that stand in a folder ($NVML_GPUS):

     gpus                 a line for each: uuid|MiB|minor|MiB in use|return code|name
     use/<uuid>.<pid>     MiB that a process has, as long as it lives

   Reading it again for every call is slow, and right: tests change the folder meanwhile. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 16
#define MIB (1ULL << 20)
enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };

struct gpu {
    char uuid[96], name[96];
    unsigned long long total, used;
    unsigned minor;
    int status;
};
struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };

static char *folder(void) { return getenv("NVML_GPUS"); }

static unsigned load(struct gpu *found) {
    char path[4096], line[512];
    unsigned count = 0;
    snprintf(path, sizeof path, "%s/gpus", folder());
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    while (count < MOST && fgets(line, sizeof line, file)) {
        struct gpu *one = &found[count];
        if (sscanf(line, "%95[^|]|%llu|%u|%llu|%d|%95[^\n]", one->uuid, &one->total, &one->minor, &one->used,
                   &one->status, one->name) == 6)
            count++;
    }
    fclose(file);
    return count;
}

/* A handle is the number of a GPU and one more. */
static int get(void *handle, struct gpu *one) {
    struct gpu found[MOST];
    unsigned count = load(found), number = (unsigned)(size_t)handle - 1;
    if (number >= count) return INVALID;
    *one = found[number];
    return one->status;
}

static unsigned users(const struct gpu *one, struct process *found) {
    char path[4096];
    unsigned count = 0;
    snprintf(path, sizeof path, "%s/use", folder());
    DIR *directory = opendir(path);
    if (!directory) return 0;
    for (struct dirent *entry; (entry = readdir(directory)) && count < MOST;) {
        char *dot = strrchr(entry->d_name, '.');
        size_t length = strlen(one->uuid);
        if (!dot || strncmp(entry->d_name, one->uuid, length) || entry->d_name + length != dot) continue;
        int pid = atoi(dot + 1);
        if (pid <= 0 || kill(pid, 0)) continue;
        struct process process = {(unsigned)pid, 0, ~0u, ~0u};
        char name[8192];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        FILE *file = fopen(name, "r");
        if (file) {
            if (fscanf(file, "%llu", &process.used) != 1) process.used = 0;
            fclose(file);
        }
        process.used *= MIB;
        found[count++] = process;
    }
    closedir(directory);
    return count;
}

static unsigned long long in_use(const struct gpu *one) {
    struct process found[MOST];
    unsigned long long total = one->used * MIB;
    for (unsigned count = users(one, found); count--;) total += found[count].used;
    return total;
}

static int text(char *to, unsigned size, const char *from) {
    if (strlen(from) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return folder() && *folder() ? SUCCESS : DRIVER_NOT_LOADED; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : code == 9 ? "Driver Not Loaded" : "an error"; }
int nvmlSystemGetDriverVersion(char *to, unsigned size) { return text(to, size, "550.54.15"); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12040; return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    struct gpu found[MOST];
    *count = load(found);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **handle) {
    struct gpu found[MOST];
    *handle = (void *)(size_t)(number + 1);
    return number < load(found) ? SUCCESS : INVALID;
}

int nvmlDeviceGetUUID(void *handle, char *to, unsigned size) {
    struct gpu one;
    int status = get(handle, &one);
    return status ? status : text(to, size, one.uuid);
}

int nvmlDeviceGetName(void *handle, char *to, unsigned size) {
    struct gpu one;
    int status = get(handle, &one);
    return status ? status : text(to, size, one.name);
}

int nvmlDeviceGetMinorNumber(void *handle, unsigned *minor) {
    struct gpu one;
    int status = get(handle, &one);
    *minor = one.minor;
    return status;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    struct gpu one;
    int status = get(handle, &one);
    *current = *pending = strstr(one.name, "MIG") != NULL;
    return status ? status : *current ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    struct gpu one;
    int status = get(handle, &one);
    if (!status) *memory = (struct memory){one.total * MIB, one.total * MIB - in_use(&one), in_use(&one)};
    return status;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory_v2 *memory) {
    struct gpu one;
    int status = get(handle, &one);
    if (memory->version != (sizeof *memory | 2u << 24)) return 25; /* of the argument */
    if (!status)
        *memory = (struct memory_v2){memory->version, one.total * MIB, 0, one.total * MIB - in_use(&one), in_use(&one)};
    return status;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process *processes) {
    struct gpu one;
    struct process found[MOST];
    int status = get(handle, &one);
    if (status) return status;
    unsigned room = *count;
    *count = users(&one, found);
    if (*count > room) return INSUFFICIENT_SIZE;
    if (*count) memcpy(processes, found, *count * sizeof *found);
    return SUCCESS;
}
