/* address - listen addresses and browsers' Origins: reading and comparing them.  Pure. */
#ifndef ROLE_COMMON_ADDRESS_H
#define ROLE_COMMON_ADDRESS_H

#include "base/result.h"

#include <sys/socket.h>

#define ADDRESS_TEXT 64

/* "address:port", "[v6]:port", "localhost:port".  TR_INVALID says what is wrong, without the key's name. */
enum tr_rc address_parse(const char *text, struct sockaddr_storage *ret_address, struct tr_err *err) TR_MUST_CHECK;
uint16_t address_port(const struct sockaddr_storage *address);
/* "127.0.0.1:8080", "[::1]:8080". */
void address_format(const struct sockaddr_storage *address, char ret_text[ADDRESS_TEXT]);
/* The 16 bytes of IPv6, v4-mapped for IPv4, as rate limits count it. */
void address_bytes(const struct sockaddr_storage *address, uint8_t ret_bytes[16]);

/* The Origins that may connect; a zeroed struct allows none. */
struct origins {
    char **list; /* owned: in lower case, the scheme's own port left out */
    size_t n;
};
/*
 * `text` is TROUPE_ORIGINS: "https://chat.example, http://localhost:3000"; "": http:// and 127.0.0.1, localhost, [::1]
 * with `port`, and `address` (the listener's own, may be NULL) with it.  TR_INVALID names the entry.
 */
enum tr_rc origins_parse(const char *text, uint16_t port, const struct sockaddr_storage *address,
                         struct origins *ret_origins, struct tr_err *err) TR_MUST_CHECK;
void origins_release(struct origins *origins);
bool origins_allow(const struct origins *origins, const char *origin, size_t len);

#endif
