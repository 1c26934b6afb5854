/* Sorting what a run holds by device: millions of small records with few distinct high bytes. */
#ifndef TBF_SORT_H
#define TBF_SORT_H

#include <stddef.h>
#include <stdint.h>

/* Series at..at+n-1 of a head, all of one device. */
typedef struct {
    uint64_t device;
    uint32_t at, n;
} tbf_group;

/* Sorts by device; groups of one device stay in their order.  spare: room for as many groups. */
void tbf_sort_groups(tbf_group *groups, tbf_group *spare, size_t n);

#endif
