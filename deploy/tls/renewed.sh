#!/bin/sh
# Where certbot puts it, Lexora may not read the key: a copy for the service alone, at each renewal. Lexora loads it by itself.
# Install: sudo install -m 755 deploy/tls/renewed.sh /etc/letsencrypt/renewal-hooks/deploy/lexora
set -eu
: "${RENEWED_LINEAGE:?certbot sets it: the folder of the renewed certificate}"
folder=${LEXORA_TLS_FOLDER:-/etc/lexora/tls}
owner=${LEXORA_TLS_OWNER:-lexora:lexora}
install -d -m 750 "$folder"
chown "$owner" "$folder"
for name in privkey.pem fullchain.pem; do
    # By rename: a file is there as a whole or not at all.
    install -m 640 "$RENEWED_LINEAGE/$name" "$folder/.$name.new"
    chown "$owner" "$folder/.$name.new"
    mv "$folder/.$name.new" "$folder/$name"
done
