#!/bin/sh
# Makes sure that commands exist: deploy/packages.sh COMMAND:PACKAGE[,PACKAGE] ...
# As root the missing packages are installed with apt-get, otherwise they are named.
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing=
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing $(echo "${pair#*:}" | tr ',' ' ')"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tbfast: please install:$missing (Debian, Ubuntu: apt-get install$missing)" >&2
    exit 1
fi
echo "tbfast: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
# A broker from the package must not take port 1883 of the machine it is tested on.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
# shellcheck disable=SC2086  # words are wanted
apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null
