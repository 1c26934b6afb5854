/* Preloaded into an interpreter: one allocation of our extension modules fails, and what they hold
 * is counted.
 *
 * Only calls from the modules that `shim_watch` found count; the interpreter's own succeed. */
#define _GNU_SOURCE
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MODULES = 64 };

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

static struct { uintptr_t begin, end; } modules[MODULES];
static size_t module_count;
static _Atomic int64_t left = -1; /* allocations until one fails; negative: none does */
static _Atomic int64_t failures;
static _Atomic int64_t live; /* allocated and not freed */

static int note(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size;
    (void)unused;
    if (strstr(info->dlpi_name, "/tbfast/_ext/") == NULL) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0 && module_count < MODULES) {
            modules[module_count].begin = info->dlpi_addr + part->p_vaddr;
            modules[module_count].end = modules[module_count].begin + part->p_memsz;
            module_count++;
        }
    }
    return 0;
}

/* Finds the modules that are loaded now; returns how many pieces of code they have. */
size_t shim_watch(void) {
    module_count = 0;
    dl_iterate_phdr(note, NULL);
    return module_count;
}

/* After so many more allocations one fails; negative: none does. */
void shim_fail_after(int64_t allocations) {
    failures = 0;
    left = allocations;
}

int64_t shim_failures(void) { return failures; }
int64_t shim_live(void) { return live; }

static bool is_watched(void *caller) {
    uintptr_t at = (uintptr_t)caller;
    for (size_t i = 0; i < module_count; i++) {
        if (at >= modules[i].begin && at < modules[i].end) {
            return true;
        }
    }
    return false;
}

static bool fails(void) {
    if (left < 0 || atomic_fetch_sub(&left, 1) != 0) {
        return false;
    }
    failures++;
    return true;
}

void *malloc(size_t n) {
    if (!is_watched(__builtin_return_address(0))) {
        return __libc_malloc(n);
    }
    void *p = fails() ? NULL : __libc_malloc(n);
    live += p != NULL;
    return p;
}

void *calloc(size_t count, size_t n) {
    if (!is_watched(__builtin_return_address(0))) {
        return __libc_calloc(count, n);
    }
    void *p = fails() ? NULL : __libc_calloc(count, n);
    live += p != NULL;
    return p;
}

void *realloc(void *old, size_t n) {
    if (!is_watched(__builtin_return_address(0))) {
        return __libc_realloc(old, n);
    }
    void *p = fails() ? NULL : __libc_realloc(old, n);
    live += p != NULL && old == NULL;
    return p;
}

void free(void *p) {
    live -= p != NULL && is_watched(__builtin_return_address(0));
    __libc_free(p);
}
