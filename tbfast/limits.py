"""Every bound in one place: unit in the name, default, reason.

The documented table of limits is generated from this module (``tbfast config --limits``).
Bounds that an operator may change are defaults of the configuration tree as well.
"""

from typing import Final

# MQTT (hostile-input bounds; ThingsBoard's own default where it has one)
MQTT_MAX_REMAINING_BYTES: Final = 65_536  # whole Remaining Length, as ThingsBoard
MQTT_RECEIVE_MAXIMUM: Final = 1_024  # QoS > 0 in flight per session, announced on MQTT 5
MQTT_TOPIC_ALIAS_MAXIMUM: Final = 16  # inbound aliases per session
MQTT_TOPIC_ALIAS_BYTES: Final = 16_384  # all alias topics of a session together
MQTT_QUEUE: Final = 100  # packets kept until CONNACK, requests that wait, as ThingsBoard
MQTT_EARLY_BYTES: Final = 262_144  # bytes of packets kept until CONNACK
MQTT_CONNECT_TIMEOUT_MS: Final = 10_000  # accept to accepted CONNECT; progress does not extend it
MQTT_IDLE_TIMEOUT_MS: Final = 600_000  # no activity: session closed, as ThingsBoard
MQTT_CLOSE_TIMEOUT_MS: Final = 1_000  # acknowledgements still awaited before a close
MQTT_SUBSCRIPTIONS: Final = 256  # per session
MQTT_FILTERS_PER_SUBSCRIBE: Final = 256  # the rest of the packet gets 0x97 (v3: 0x80)
MQTT_ACK_TIMEOUT_MS: Final = 10_000  # a PUBACK of the device is waited for so long
MQTT_DOWNLINK_WINDOW: Final = 100  # messages to a session without a PUBACK yet, at most
MQTT_DOWNLINK_QUEUE: Final = 100  # messages that wait for room in the window; more are dropped
MQTT_DOWNLINK_QUEUE_BYTES: Final = 1_048_576  # topics and payloads of those; likewise
MQTT_PACKAGE_REQUESTS: Final = 16  # OTA request ids a session is remembered by
MQTT_PACKAGE_CHUNKS: Final = 8  # sent and not acknowledged; later ones are read after that
MQTT_PACKAGE_BYTES: Final = 917_504  # of a file that is sent whole; larger ones need a chunk size
MQTT_PROVISION_MS: Final = 60_000  # after its first reply a client that registers is sent away
MQTT_TOPIC_LEVELS: Final = 64  # more is an unknown topic or a failed filter
MQTT_TOPIC_BYTES: Final = 1_024  # the same
MQTT_USER_PROPERTIES: Final = 64  # per packet; more is malformed

# Connections
OUTBOUND_BYTES: Final = 1_048_576  # per session; beyond it the peer is disconnected
OUTBOUND_PAUSE_BYTES: Final = 65_536  # unsent output at which we stop reading that peer
WRITE_TIMEOUT_MS: Final = 10_000  # unsent output without progress: disconnected
TCP_TIMEOUT_MS: Final = 30_000  # data sent and not acknowledged by the peer's TCP: gone
UNAUTHENTICATED_CONNECTIONS: Final = 16_384  # per worker; then the fullest address loses one
STRANGER_GRACE_MS: Final = 200  # a full worker hears them before it closes one of them
UNAUTHENTICATED_BYTES: Final = 67_108_864  # received from them, per worker; the same
BLOCKED_ADDRESSES: Final = 65_536  # with wrong credentials, remembered by the node
FLAPPING_BURST: Final = 30  # connects of one device in a row; then it is let in late
FLAPPING_INTERVAL_MS: Final = 2_000  # between its connects in the long run
FLAPPING_DEVICES: Final = 1_048_576  # device numbers so far apart count as one
TLS_HANDSHAKES: Final = 1_024  # under way, per worker; more of the fullest address wait
TLS_HANDSHAKE_PATIENCE_MS: Final = 2_000  # one that lasts longer goes when others wait
TLS_HANDSHAKE_WAIT_MS: Final = 60_000  # for its turn, longest; beside MQTT_CONNECT_TIMEOUT_MS
TLS_CHAIN_CERTIFICATES: Final = 10  # presented by a client, as Java's default
TLS_CHAIN_BYTES: Final = 32_768  # the same, encoded
RESERVED_DESCRIPTORS: Final = 64  # per worker, kept from connections for store, logs and link

# JSON telemetry
JSON_MAX_DEPTH: Final = 255
JSON_MAX_KEYS: Final = 10_000  # members of one object
JSON_MAX_PLAIN_DIGITS: Final = 4_096  # characters a number may need because of its exponent

# Protobuf payloads and the schemas of device profiles
PROTO_MAX_DEPTH: Final = 32  # messages within messages of a payload; deeper is refused
PROTO_MAX_FIELDS: Final = 100_000  # fields of one message on the wire
PROTO_PRINTED_BYTES: Final = 4_194_304  # JSON that one payload becomes; longer is refused
PROTO_SCHEMA_BYTES: Final = 65_536  # of one .proto text
PROTO_SCHEMA_FIELDS: Final = 2_048  # fields and enum values of one schema
PROTO_SCHEMA_DEPTH: Final = 16  # messages declared within messages
PROTO_SCHEMAS: Final = 256  # kept compiled, per process; the oldest is forgotten
PROTO_NAME_CHARS: Final = 255  # longest name of a field, type or value

# Ingest path of one worker
BATCH_GROUP_BYTES: Final = 262_144  # one commit group at most: the GIL is held during its write
BATCH_COMMIT_BYTES: Final = 65_536  # waiting rows that trigger a commit at the end of the turn
COMMIT_INTERVAL_MS: Final = 1  # timer that commits smaller groups
INFLIGHT_BYTES: Final = 8_388_608  # rows not yet durable; beyond it publishers are not read
KEYS_PER_EPOCH: Final = 65_536  # key numbers of one journal epoch; further names travel inline
JOURNAL_MAX_BYTES: Final = 17_179_869_184  # on disk per journal; beyond it telemetry is refused
JOURNAL_BUSY_MS: Final = 30_000  # rows wait for the disk for longer: newcomers hear "busy"

# Series: what the controller makes of the journals
HEAD_BYTES: Final = 33_554_432  # rows that no run holds yet; a full head is sealed
HEAD_BLOCKED_HEADS: Final = 4  # heads of rows held while sealing lags; then workers wait
HEAD_SPARE_BYTES: Final = 67_108_864  # memory of a sealed head kept for the next one, at most ...
HEAD_SPARE_MS: Final = 60_000  # ... and no longer than this after the last run
SEAL_INTERVAL_MS: Final = 600_000  # rows are sealed after this time even in a small head
JOIN_RUNS: Final = 64  # runs whose chunks lie side by side; then they are joined
JOIN_POINTS: Final = 131_072  # of one device that are joined at a time; bounds memory
JOIN_BYTES: Final = 4_194_304  # of its chunks, the same
LATEST_RUNS: Final = 64  # runs whose changes of latest values are kept apart; a start reads them
LATEST_BYTES: Final = 134_217_728  # of the same
RETENTION_CLASSES: Final = 4  # different times to keep rows: each has windows of its own
WINDOWS_PER_RETENTION: Final = 16  # windows are dropped whole: the grain of retention
WINDOW_MS: Final = 86_400_000  # span of a window when nothing is ever dropped by age
TOMBSTONES_PER_DEVICE: Final = 1_024  # deleted ranges of rows still stored; more are refused

# Disk (promises 6)
DISK_RESERVE_BYTES: Final = 67_108_864  # kept for deletes and shutdown; at most 5 % of the disk
DISK_HEADROOM_BYTES: Final = 50_331_648  # beside the reserve, for flushes; at most 25 %
DISK_LOW_BYTES: Final = 1_073_741_824  # or 10 % of the disk: with less left the oldest windows go
DISK_ALARM_PERCENT: Final = 90  # of the budget or of the file system
DISK_CHECK_MS: Final = 1_000  # between two measurements; one window at most is dropped for each
WINDOWS_PER_BUDGET: Final = 16  # a window is closed when it is that part of a byte bound

# Link between worker and controller
LINK_CREDIT_BYTES: Final = 4_194_304  # blocks pushed and not yet consumed, per worker
LINK_GATHER_MS: Final = 5  # committed blocks wait so long for company on their way
LINK_GATHER_BYTES: Final = 65_536  # or until they are so many
LINK_REPLAY_BYTES: Final = 262_144  # read from the journal per loop turn while replaying
REPLAY_WAIT_S: Final = 5.0  # a save after a restart waits so long for the rows before it
MERGE_FRESH_MS: Final = 1_000  # journals whose newest blocks are so close are not held in step
LINK_TURN_S: Final = 0.002  # frames are acted on for so long per loop turn
LINK_BUFFER_BYTES: Final = 262_144  # read at once from a link; more for a longer frame
LINK_FRAME_BYTES: Final = 67_108_864  # longest frame either side accepts

# Device operations that the controller carries out
OPERATIONS_PENDING: Final = 20_000  # per worker, not answered yet; more are refused
RPC_PENDING_PER_DEVICE: Final = 100  # calls of the server that wait; more are answered 503
RPC_PENDING: Final = 100_000  # the same for the whole node
RPC_PENDING_BYTES: Final = 67_108_864  # methods and parameters of those together
RPC_CALL_BYTES: Final = 65_536  # method and parameters of one call; longer is answered 400
RPC_ANSWER_BYTES: Final = 65_536  # of one kept; a longer one is not
RPC_INFO_BYTES: Final = 4_096  # additionalInfo of one persistent call; more is answered 400
RPC_KEPT_PER_DEVICE: Final = 256  # persistent calls; the oldest finished one makes room
RPC_KEPT: Final = 20_000  # the same for the whole node
RPC_KEPT_MS: Final = 604_800_000  # finished persistent calls are deleted after this time
CALLS_OF_DEVICES: Final = 10_000  # that wait for the operator's handler; more are refused
WEBHOOK_REQUESTS: Final = 16  # under way at once; further calls wait for their turn
WEBHOOK_ANSWER_BYTES: Final = 65_536  # of one; a longer one is an error
REQUEST_TIMEOUT_MS: Final = 10_000  # a device's request waits so long for the controller
CALL_TIMEOUT_MS: Final = 60_000  # a device's call that nobody answers, as ThingsBoard

# Rate limits of a tenant profile
RATE_BUCKETS: Final = 4  # capacity:seconds pairs of one limit; more are refused

# OTA packages
UPDATES_CHANGED: Final = 65_536  # devices and profiles to look at; past it all are looked at
UPDATES_WAITING: Final = 100_000  # devices whose update is queued in memory; the rest follows
UPDATES_AT_ONCE: Final = 64  # devices looked at or told in one go
PACKAGE_READS: Final = 4_096  # per worker, pieces that wait to be read; more are refused
PACKAGE_UPLOADS: Final = 4  # files received at once; more are answered 503

# Activity of devices
ACTIVITY_SCAN_DEVICES: Final = 1_024  # looked at in one turn of the controller's loop

# Memory (promises 9), of the cgroup's limit or ulimit -v
MEMORY_SHED_PERCENT: Final = (80, 87, 93)  # no new connections; smaller windows; slow peers go
MEMORY_BACK_PERCENT: Final = 3  # so much less before a step is taken back
MEMORY_INFLIGHT_BYTES: Final = 1_048_576  # INFLIGHT_BYTES while memory is scarce

# Logs
LOG_LINES_PER_SECOND: Final = 10  # per reason; the rest is counted
LOG_PEER_BYTES: Final = 64  # bytes of peer data shown, escaped
LOG_REASONS: Final = 256  # reasons counted apart; further ones share a count
LOG_LINE_BYTES: Final = 4_096  # the rest of a longer line is cut: a pipe takes so much at once
LOG_QUEUE_LINES: Final = 1_024  # waiting for standard error, per process; then lines are dropped

# HTTP (hostile-input 2 and 12)
HTTP_HEAD_BYTES: Final = 16_384  # request line and headers; longer is answered 431
HTTP_HEADERS: Final = 100  # more are answered 431
HTTP_TARGET_BYTES: Final = 8_192  # longer is answered 414
HTTP_BODY_BYTES: Final = 65_536  # of pages and RPC; longer is answered 413 before it is read
HTTP_DEVICE_BODY_BYTES: Final = 1_048_576  # of other device calls; likewise
HTTP_CHUNK_LINE_BYTES: Final = 256  # chunk size with its extensions
HTTP_HEAD_TIMEOUT_MS: Final = 10_000  # first byte (first request: accept) to complete head
HTTP_BODY_TIMEOUT_MS: Final = 30_000  # end of head to end of body, progress does not extend it
HTTP_BODY_RATE: Final = 16_384  # bytes per s that extend the same for the controller's requests
HTTP_POLL_TIMEOUT_MS: Final = 60_000  # wait of a long poll that names none, as ThingsBoard
HTTP_POLL_TIMEOUT_MAX_MS: Final = 300_000  # longest wait of one, whatever it names
HTTP_POLLS_PER_DEVICE: Final = 8  # waiting at once; more are answered 429
HTTP_CALLS_PER_DEVICE: Final = 8  # client RPC likewise
HTTP_BODIES_BYTES: Final = 33_554_432  # device bodies being read, per worker; then 503
HTTP_IDLE_TIMEOUT_MS: Final = 60_000  # between two requests of a connection
HTTP_LINGER_MS: Final = 500  # after a closing answer: what still arrives is read and dropped
HTTP_CONNECTIONS: Final = 16_384  # per worker; when full the oldest is closed
HTTP_REQUESTS_PER_TURN: Final = 16  # pipelined requests of one connection answered in a row

# Reverse proxy of a worker: requests for the controller
PROXY_CONNECTIONS: Final = 256  # to the controller, per worker; then an idle one goes, else 503
CONTROLLER_DESCRIPTORS: Final = 160  # it keeps for stores, links and logs, or half of all
PROXY_IDLE_MS: Final = 2_000  # a connection nobody uses is closed before the controller would
PROXY_BUFFER_BYTES: Final = 65_536  # unsent in either direction; then the sender is not read
PROXY_DRAIN_MS: Final = 2_000  # a worker that stops cuts answers that take longer

# Health
HEARTBEAT_STALE_MS: Final = 5_000  # a process silent for longer counts as not ready
DISK_PATIENCE_MS: Final = 300_000  # the same for one that opens a store or syncs with the GIL held

# Registry and its REST interface
REGISTRY_CHANGES: Final = 100_000  # entries of the change log; older readers start afresh
REGISTRY_NAME_CHARS: Final = 255  # longest device name, label, type or credentials id
REGISTRY_INFO_BYTES: Final = 65_536  # additionalInfo of one device, encoded
REGISTRY_INFO_DEPTH: Final = 32  # its nesting
REGISTRY_PROFILE_BYTES: Final = 1_048_576  # one device profile, encoded, its image included
AUTHORITIES_BYTES: Final = 4_194_304  # read of each file of well-known certificate authorities
REGISTRY_PROFILE_DEPTH: Final = 64  # its nesting
REGISTRY_PROFILE_CACHE: Final = 1_024  # profiles kept decoded; the oldest is forgotten
REGISTRY_CREDENTIALS_CHARS: Final = 65_536  # longest credentialsValue
REGISTRY_UNIQUE_NAMES: Final = 10_000  # names tried for nameConflictPolicy=UNIQUIFY
REGISTRY_RESOURCE_BYTES: Final = 1_048_576  # one LwM2M object definition file
REGISTRY_RESOURCES: Final = 2_000  # such files; more are refused
REGISTRY_PACKAGES: Final = 10_000  # OTA packages; more are refused
REST_BODY_BYTES: Final = 16_777_216  # of one request; longer is answered 413, as ThingsBoard
REST_PACKAGE_BYTES: Final = 52_428_800  # of one that uploads an OTA package, likewise
REST_SCAN_ROWS: Final = 256  # devices read per loop turn while a list is searched
REST_QUERY_DEVICES: Final = 20_000  # whose values one entity query reads; more is answered 400
REST_KEYS_DEVICES: Final = 1_000  # whose keys are collected for one answer
REST_NUMBER_CHARS: Final = 400  # longer values are no numbers to an entity query
REST_POINTS: Final = 1_000_000  # of one key in one answer, whatever `limit` says
REST_BUCKETS: Final = 700  # of one aggregation; more is answered 400, as ThingsBoard
READ_CHUNK_BYTES: Final = 67_108_864  # of chunks that one read keeps; others it reads again
READ_PIECES: Final = 1_048_576  # series in chunks that one read looks at; more is answered 400
READ_ROWS: Final = 2_097_152  # not yet sealed, in one read; more is answered 400
REST_ANSWER_BYTES: Final = 67_108_864  # of stored values in one answer; more is answered 400
REST_ANSWERS_BYTES: Final = 201_326_592  # of all that are made or sent; further ones wait
REST_ANSWER_WAIT_MS: Final = 10_000  # for so long, then they are answered 503
WS_CONNECTIONS: Final = 1_024  # WebSockets at once; further ones are closed with 1008
WS_SUBSCRIPTIONS: Final = 1_024  # of one WebSocket; the same
WS_ENTITIES: Final = 1_000  # devices of one entity subscription
WS_COUNT_MS: Final = 500  # between two looks at the same count, at least
WS_COUNT_REST: Final = 20  # or so many times as long as the look took
WS_CHECK_MS: Final = 200  # between two looks at what a WebSocket may no longer see
WS_MESSAGE_BYTES: Final = 32_768  # received in one piece, as ThingsBoard
WS_QUEUE_MESSAGES: Final = 1_000  # waiting for a slow reader, who is then closed
WS_QUEUE_BYTES: Final = 4_194_304  # or so many bytes; a longer answer is an error
REST_TAIL_CACHE_DEVICES: Final = 65_536  # device names one live stream remembers

# Accounts
USERS: Final = 10_000  # of one node; more are refused
API_KEYS: Final = 4_096  # of one node; more are refused
API_KEYS_PER_USER: Final = 100  # likewise
PASSWORD_MIN_CHARS: Final = 8  # shorter ones are guessed
PASSWORD_MAX_CHARS: Final = 128  # longer ones only cost time
PASSWORD_HASHES: Final = 1  # computed at once, each 16 MiB and 0.2 s of a processor core
PASSWORD_HASHES_WAITING: Final = 16  # for their turn; more logins are answered 503
LOGIN_FAILURES_PER_USER: Final = 10  # in a row, then one per LOGIN_FAILURE_MS; more: 429
LOGIN_FAILURES_PER_ADDRESS: Final = 30  # the same for one address, whatever it tries
LOGIN_FAILURE_MS: Final = 10_000  # after which one more attempt is allowed
LOGIN_FAILURES_TABLE: Final = 16_384  # users and addresses remembered; then the oldest goes
LOGGED_OUT_SESSIONS: Final = 16_384  # remembered until they expire; then all of that user end
AUTH_TOKEN_BYTES: Final = 4_096  # longest token or key that is looked at
ACCESS_TOKEN_S: Final = 9_000  # life of a token, as ThingsBoard
REFRESH_TOKEN_S: Final = 604_800  # life of a refresh token, as ThingsBoard
ACTIVATION_TOKEN_S: Final = 86_400  # life of an activation link, as ThingsBoard
