{{- define "lexora.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "lexora.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "lexora.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lexora.selector" -}}
app.kubernetes.io/name: {{ include "lexora.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "lexora.labels" -}}
{{ include "lexora.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "lexora.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lexora.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "lexora.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The configuration: what the values have, and below it what the chart adds. Of both, the values count. */}}
{{- define "lexora.config" -}}
{{- $server := dict "host" "0.0.0.0" "port" 8001 "grpc_port" 50051 "admin_port" 8002 "drain_timeout" 30 -}}
{{- if .Values.tls.secret -}}
{{- $tls := dict "cert" "/etc/lexora/tls/tls.crt" "key" "/etc/lexora/tls/tls.key" -}}
{{- if .Values.tls.clientCa.secret -}}
{{- $_ := set $tls "client_ca" (printf "/etc/lexora/client-ca/%s" .Values.tls.clientCa.entry) -}}
{{- end -}}
{{- $_ := set $server "tls" $tls -}}
{{- end -}}
{{- $own := dict "server" $server -}}
{{- $auth := dict -}}
{{- if .Values.keys.secret -}}
{{- $_ := set $auth "mode" "keys" -}}
{{- $_ := set $auth "keys_file" (printf "/etc/lexora/keys/%s" .Values.keys.entry) -}}
{{- end -}}
{{- if .Values.keys.cacheSalt.secret -}}
{{- $_ := set $auth "cache_salt_secret_env" "CACHE_SALT" -}}
{{- end -}}
{{- if $auth -}}
{{- $_ := set $own "auth" $auth -}}
{{- end -}}
{{- $url := ternary (printf "valkey://%s-valkey:6379" (include "lexora.fullname" .)) .Values.state.url .Values.valkey.enabled -}}
{{- if $url -}}
{{- $state := dict "url" $url -}}
{{- if .Values.state.password.secret -}}
{{- $_ := set $state "password_env" "STATE_PASSWORD" -}}
{{- end -}}
{{- $_ := set $own "state" $state -}}
{{- end -}}
{{- merge (deepCopy .Values.config) $own | toYaml -}}
{{- end -}}

{{/* Whether clients have to show a certificate over HTTP, or over gRPC: then kubelet and commands of the pod cannot ask. */}}
{{- define "lexora.httpCertificate" -}}
{{- $tls := dig "server" "tls" "client_auth" "none" (include "lexora.config" . | fromYaml) -}}
{{- if eq $tls "required" }}yes{{ end -}}
{{- end -}}
{{- define "lexora.grpcCertificate" -}}
{{- $tls := dig "server" "tls" dict (include "lexora.config" . | fromYaml) -}}
{{- if eq (default (get $tls "client_auth" | default "none") (get $tls "grpc_client_auth")) "required" }}yes{{ end -}}
{{- end -}}

{{- define "lexora.httpPort" -}}
{{- .Values.service.httpPort | default (ternary 443 80 (ne .Values.tls.secret "")) -}}
{{- end -}}

{{/* A question to HTTP, as the port takes it. */}}
{{- define "lexora.probe" -}}
{{- if include "lexora.httpCertificate" .root -}}
tcpSocket: {port: http}
{{- else -}}
httpGet: {path: {{ .path }}, port: http, scheme: {{ ternary "HTTPS" "HTTP" (ne .root.Values.tls.secret "") }}}
{{- end -}}
{{- end -}}

{{/* Options with which a command of the pod reaches the gRPC port. */}}
{{- define "lexora.reach" -}}
{{- $port := dig "server" "grpc_port" 50051 (include "lexora.config" . | fromYaml) | int -}}
{{- $reach := list "--router" (printf "%s:%d" (ternary .Values.tls.serverName "127.0.0.1" (ne .Values.tls.secret "")) $port) -}}
{{- if .Values.tls.secret -}}
{{- $reach = ternary (concat $reach (list "--ca" "/etc/lexora/tls/ca.crt")) (append $reach "--tls") .Values.tls.ca -}}
{{- end -}}
{{- toJson $reach -}}
{{- end -}}

{{- define "lexora.env" -}}
{{- range $name, $from := .Values.secretEnv }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}}}
{{- end }}
{{- with .Values.keys.cacheSalt }}
{{- if .secret }}
- name: CACHE_SALT
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .entry }}}}
{{- end }}
{{- end }}
{{- with .Values.state.password }}
{{- if .secret }}
- name: STATE_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .entry }}}}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "lexora.mounts" -}}
- {name: config, mountPath: /etc/lexora/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.keys.secret }}
- {name: keys, mountPath: /etc/lexora/keys, readOnly: true}
{{- end }}
{{- if .Values.tls.secret }}
- {name: tls, mountPath: /etc/lexora/tls, readOnly: true}
{{- end }}
{{- if .Values.tls.clientCa.secret }}
- {name: client-ca, mountPath: /etc/lexora/client-ca, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "lexora.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What cannot work, said before anything is made of it. */}}
{{- define "lexora.refuse" -}}
{{- if and .Values.tls.secret (not .Values.tls.serverName) -}}
{{- fail "tls.serverName is missing: a name in the certificate of tls.secret, which commands inside the pod ask for" -}}
{{- end -}}
{{- $config := include "lexora.config" . | fromYaml -}}
{{- if and (ne (toString (dig "auth" "mode" "off" $config)) "off") (not (or (dig "auth" "cache_salt_secret_env" "" $config) (dig "auth" "cache_salt_secret" "" $config))) -}}
{{- fail "keys.cacheSalt.secret is missing: pods with different secrets split the prefix caches of their tenants (docs/security.md)" -}}
{{- end -}}
{{- if and .Values.valkey.enabled .Values.state.url -}}
{{- fail "state.url and valkey.enabled are two stores: leave one out" -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if not (or .Values.autoscaling.callsInFlight .Values.autoscaling.queueSeconds .Values.autoscaling.cpu) -}}
{{- fail "autoscaling needs one of callsInFlight, queueSeconds and cpu" -}}
{{- end -}}
{{- end -}}
{{- end -}}
