{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/*
The end of an engine's pod. It first leaves the Service and sleeps until every gateway has looked the Service up again, for a
vLLM that drains says that it is healthy and refuses what is new; then it is told to stop, and lets its streams finish.
*/}}
{{- define "llm-gateway.engineLifecycle" -}}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .values.shutdown.preStopSeconds }}
{{- end -}}

{{/* The key that the engine wants, where there is one; both engines read this variable. */}}
{{- define "llm-gateway.engineKey" -}}
{{- if has "VLLM_API_KEY" (include "llm-gateway.secretKeys" . | fromYamlArray) -}}
- name: VLLM_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "llm-gateway.secretName" . }}
      key: VLLM_API_KEY
{{- end -}}
{{- end -}}

{{/* The pod of a simulator: (list $ engine). */}}
{{- define "llm-gateway.simulatorPod" -}}
{{- $root := first . -}}
{{- $engine := last . -}}
{{- $values := $engine.values -}}
{{ include "llm-gateway.podBasics" $root }}
terminationGracePeriodSeconds: {{ int $engine.grace }}
{{- with include "llm-gateway.placement" $values }}
{{ . }}
{{- end }}
containers:
  - name: simulator
    {{- include "llm-gateway.ownImage" $root | nindent 4 }}
    args:
      - simulate
      {{- range list "--host" "0.0.0.0" "--port" "8000" "--model" $engine.served }}
      - {{ . | quote }}
      {{- end }}
      {{- range $flag, $value := dict "--ttft-ms" $values.ttftMs "--pace-ms" $values.paceMs "--tokens" $values.tokens "--max-model-len" $values.maxModelLen "--shutdown-timeout" $engine.drain }}
      - {{ $flag }}
      - {{ int64 $value | quote }}
      {{- end }}
      {{- range $values.args }}
      - {{ . | quote }}
      {{- end }}
    {{- with include "llm-gateway.engineKey" $root }}
    env:
      {{- . | nindent 6 }}
    {{- end }}
    ports:
      - name: http
        containerPort: 8000
    startupProbe:
      httpGet:
        path: /health
        port: http
      periodSeconds: 1
      failureThreshold: 60
    readinessProbe:
      httpGet:
        path: /health
        port: http
      periodSeconds: 2
    livenessProbe:
      httpGet:
        path: /health
        port: http
      periodSeconds: 10
      timeoutSeconds: 5
    {{- include "llm-gateway.engineLifecycle" $engine | nindent 4 }}
    resources:
      {{- toYaml ($values.resources | default dict) | nindent 6 }}
    {{- include "llm-gateway.containerSecurity" (list $root.Values.image.readOnlyRootFilesystem) | nindent 4 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
volumes:
  - name: tmp
    emptyDir: {}
{{- end -}}

{{/* The arguments of `vllm serve`: an engine. What is not set is left to vLLM. */}}
{{- define "llm-gateway.vllmArgs" -}}
{{- $values := .values -}}
- {{ $values.model | quote }}
{{- range list "--host" "0.0.0.0" "--port" "8000" "--served-model-name" .served }}
- {{ . | quote }}
{{- end }}
{{- if gt (int $values.tensorParallelSize) 1 }}
- --tensor-parallel-size
- {{ int $values.tensorParallelSize | quote }}
{{- end }}
{{- range $flag, $number := dict "--max-model-len" $values.maxModelLen "--max-num-seqs" $values.maxNumSeqs "--max-num-queued-reqs" $values.maxNumQueuedReqs }}
{{- with $number }}
- {{ $flag }}
- {{ int64 . | quote }}
{{- end }}
{{- end }}
{{- range $flag, $text := dict "--dtype" $values.dtype "--quantization" $values.quantization "--gpu-memory-utilization" $values.gpuMemoryUtilization "--reasoning-parser" $values.reasoningParser }}
{{- with $text }}
- {{ $flag }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- with $values.toolCallParser }}
- --enable-auto-tool-choice
- --tool-call-parser
- {{ . | quote }}
{{- end }}
{{- with $values.loraAdapters }}
- --enable-lora
- --lora-modules
{{- range . }}
- {{ dict "name" .name "path" .path | toJson | quote }}
{{- end }}
{{- end }}
- --shutdown-timeout
- {{ .drain | int | quote }}
# The gateway's request id comes back in the answer's headers and is in vLLM's log.
- --enable-request-id-headers
- --enable-prompt-tokens-details
- --disable-access-log-for-endpoints
- /health,/metrics
{{- range $values.args }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Where a vLLM may run: its own wishes, and those of its GPUs where it has any. */}}
{{- define "llm-gateway.vllmPlacement" -}}
{{- $values := deepCopy . -}}
{{- if int (include "llm-gateway.gpus" .) -}}
{{- $_ := set $values "nodeSelector" (merge (dict) (.nodeSelector | default dict) (.gpu.nodeSelector | default dict)) -}}
{{- $_ := set $values "tolerations" (concat (.gpu.tolerations | default list) (.tolerations | default list)) -}}
{{- $_ := set $values "runtimeClassName" .gpu.runtimeClassName -}}
{{- end -}}
{{- include "llm-gateway.placement" $values -}}
{{- end -}}

{{/* How many GPUs a vLLM's pod gets: of its values. */}}
{{- define "llm-gateway.gpus" -}}
{{- kindIs "invalid" .gpu.count | ternary .tensorParallelSize .gpu.count | int -}}
{{- end -}}

{{/* The pod of a vLLM: (list $ engine). */}}
{{- define "llm-gateway.vllmPod" -}}
{{- $root := first . -}}
{{- $engine := last . -}}
{{- $values := $engine.values -}}
{{- $gpus := include "llm-gateway.gpus" $values | int -}}
{{- $home := "/home/vllm" -}}
{{- $cache := eq $values.cache.type "none" | ternary (printf "%s/.cache" $home) "/cache" -}}
{{ include "llm-gateway.podBasics" $root }}
terminationGracePeriodSeconds: {{ int $engine.grace }}
{{- with include "llm-gateway.vllmPlacement" $values }}
{{ . }}
{{- end }}
containers:
  - name: vllm
    image: {{ include "llm-gateway.image" (list $values.image "latest") }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    # The image's own entry point is not relied upon: it has changed between releases.
    command: [vllm, serve]
    args:
      {{- include "llm-gateway.vllmArgs" $engine | nindent 6 }}
    env:
      # The image has no user 10001: without a home and a name for it, libraries look for both in vain.
      - name: HOME
        value: {{ $home }}
      - name: USER
        value: vllm
      - name: HF_HOME
        value: {{ $cache }}/huggingface
      # What vLLM compiles for this model and GPU; kept with the model, the next start is faster.
      - name: VLLM_CACHE_ROOT
        value: {{ $cache }}/vllm
      # Its own patience with its engine, which would otherwise end before that of the startup probe.
      - name: VLLM_ENGINE_READY_TIMEOUT_S
        value: {{ mul $values.startupProbe.periodSeconds $values.startupProbe.failureThreshold | quote }}
      # Longer than the gateway keeps a connection for later: a request never meets one that is being closed.
      - name: VLLM_HTTP_TIMEOUT_KEEP_ALIVE
        value: "75"
      - name: VLLM_NO_USAGE_STATS
        value: "1"
      - name: DO_NOT_TRACK
        value: "1"
      {{- with $values.hfToken.existingSecret }}
      - name: HF_TOKEN
        valueFrom:
          secretKeyRef:
            name: {{ . }}
            key: {{ $values.hfToken.key }}
      {{- end }}
      {{- with include "llm-gateway.engineKey" $root }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $values.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    ports:
      - name: http
        containerPort: 8000
    startupProbe:
      httpGet:
        path: /health
        port: http
      periodSeconds: {{ $values.startupProbe.periodSeconds }}
      timeoutSeconds: 5
      failureThreshold: {{ $values.startupProbe.failureThreshold }}
    {{- range $probe := list "readinessProbe" "livenessProbe" }}
    {{- with get $values $probe }}
    {{ $probe }}:
      httpGet:
        path: /health
        port: http
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- end }}
    {{- include "llm-gateway.engineLifecycle" $engine | nindent 4 }}
    resources:
      {{- $resources := deepCopy ($values.resources | default dict) }}
      {{- if $gpus }}
      {{- $_ := set $resources "limits" (merge (dict $values.gpu.resource $gpus) ($resources.limits | default dict)) }}
      {{- end }}
      {{- toYaml $resources | nindent 6 }}
    # The root stays writable: NVIDIA's hook of the container runtime writes there.
    {{- include "llm-gateway.containerSecurity" (list false) | nindent 4 }}
    volumeMounts:
      - name: home
        mountPath: {{ $home }}
      {{- if ne $values.cache.type "none" }}
      - name: cache
        mountPath: {{ $cache }}
      {{- end }}
      {{- if $values.shm.enabled }}
      - name: shm
        mountPath: /dev/shm
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: home
    emptyDir: {}
  {{- if eq $values.cache.type "emptyDir" }}
  - name: cache
    emptyDir:
      sizeLimit: {{ $values.cache.size }}
  {{- else if eq $values.cache.type "existingClaim" }}
  - name: cache
    persistentVolumeClaim:
      claimName: {{ $values.cache.existingClaim }}
  {{- else if and (eq $values.cache.type "pvc") (eq $values.kind "Deployment") }}
  - name: cache
    persistentVolumeClaim:
      claimName: {{ $engine.name }}
  {{- end }}
  {{- if $values.shm.enabled }}
  - name: shm
    emptyDir:
      medium: Memory
      sizeLimit: {{ $values.shm.sizeLimit }}
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What a claim for models asks for: of `cache`. */}}
{{- define "llm-gateway.claimSpec" -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- with .storageClassName }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end -}}
