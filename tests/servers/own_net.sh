#!/usr/bin/env bash
# own_net.sh COMMAND...: run it in a network of its own, where only loopback is, so that its firewall may be changed.  Not as root, or where
# that can't be had: as it is, without TROUPE_TEST_OWN_NET.
set -euo pipefail
if [ "$(id -u)" -eq 0 ] && unshare -n sh -c 'ip link set lo up && iptables -A OUTPUT -p tcp -m owner --gid-owner 1 -m multiport --dports 1,2 -j DROP' >/dev/null 2>&1; then
    # shellcheck disable=SC2016 # the inner shell's
    exec unshare -n env TROUPE_TEST_OWN_NET=1 sh -c 'ip link set lo up && exec "$@"' sh "$@"
fi
exec "$@"
