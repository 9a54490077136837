#!/usr/bin/env bash
# Installs the programs that the tests in this folder run, except Node and its modules. It
# needs Debian, root and Go. It does nothing if all programs are there.
#
# Most of them are servers, which Debian would start after installation. So this script does
# not install the packages, except Chromium: it unpacks them into a cache, where the tests look
# after PATH.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/apns-interop # as in findProgram in servers_test.go
packages=(curl h2o haproxy lighttpd lighttpd-mod-openssl nghttp2-client nghttp2-server nginx-light)
programs=(curl h2o haproxy lighttpd nghttp h2load nghttpd nginx)
PATH=$PATH:/usr/sbin:$cache/bin:$(go env GOPATH)/bin

missing() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || echo "$program"
  done
}

mkdir -p "$cache/bin" "$cache/debs/partial"
if [ -n "$(missing "${programs[@]}")" ]; then
  root=$cache/root
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends --download-only \
    -o Dir::Cache::archives="$cache/debs" -o APT::Sandbox::User=root "${packages[@]}"
  for deb in "$cache"/debs/*.deb; do
    dpkg -x "$deb" "$root"
  done
  rm "$cache"/debs/*.deb
  for program in $(missing "${programs[@]}"); do
    file=$(find "$root/usr/bin" "$root/usr/sbin" -name "$program")
    options=
    if [ "$program" = lighttpd ]; then
      options="-m '$root/usr/lib/lighttpd'"
    fi
    cat >"$cache/bin/$program" <<END
#!/bin/sh
export LD_LIBRARY_PATH='$(echo "$root"/usr/lib/*-linux-gnu*)' H2O_ROOT='$root/usr'
exec '$file' $options "\$@"
END
    chmod +x "$cache/bin/$program"
  done
fi
# Chromium starts nothing, and needs its libraries and a font where Debian puts them.
if [ -n "$(missing chromium)" ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core
fi
for program in $(missing h2spec h2specd); do
  GOBIN=$cache/bin go install "github.com/summerwind/h2spec/cmd/$program@latest"
done
