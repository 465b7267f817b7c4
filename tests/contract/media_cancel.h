/* media_cancel - see media_cancel.c. */
#ifndef TESTS_CONTRACT_MEDIA_CANCEL_H
#define TESTS_CONTRACT_MEDIA_CANCEL_H

void media_cancels(void **state);
void media_closes(void **state);
void media_begins_while_closing(void **state);

#endif
