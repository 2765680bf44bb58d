#!/bin/sh
# Makes a base for the Dockerfile out of Debian's packages alone, where no registry of images can be reached: sh base.sh NAME
# Needs root, buildah and mmdebstrap. It has what the Dockerfile would install, and this machine's authorities.
set -eu
name=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mmdebstrap --quiet --variant=apt --include=binutils,ca-certificates,python3.11,python3.11-venv bookworm "$folder/base.tar"
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/base.tar" / >/dev/null
buildah add --quiet "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt >/dev/null
buildah commit --quiet --rm "$container" "$name" >/dev/null
