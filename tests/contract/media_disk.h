/* media_disk - see media_disk.c. */
#ifndef TESTS_CONTRACT_MEDIA_DISK_H
#define TESTS_CONTRACT_MEDIA_DISK_H

void media_disk_is_full(void **state);
void media_disk_has_no_space(void **state);
void media_disk_refused(void **state);
void media_disk_foreign_files(void **state);

#endif
