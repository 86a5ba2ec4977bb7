package throttlekitv1_test

import (
	"fmt"
	"go/build"
	"slices"
	"strings"
	"testing"
	"unicode"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
)

// The contract was typed in from the published tables, not copied from the descriptors, so it is a second opinion.
// Clients that nobody can rebuild rely on every line of it. A line may be added, beside the addition to the .proto file
// that it stands for; none may change or go.
//
// A message lists "number name type", sorted by number; a service "method request → response" with the idempotency that
// decides whether HTTP GET works.
const contract = `
service Fleet
	Reserve ReserveRequest → ReserveResponse

service Monitor
	GetSnapshot GetSnapshotRequest → GetSnapshotResponse (no side effects)
	Watch WatchRequest → stream WatchResponse

service RateLimiter
	Admit AdmitRequest → AdmitResponse
	Check CheckRequest → CheckResponse
	CheckMany CheckManyRequest → CheckManyResponse
	Debit DebitRequest → DebitResponse
	Forecast ForecastRequest → ForecastResponse (no side effects)
	Heartbeat HeartbeatRequest → HeartbeatResponse (idempotent)
	Peek PeekRequest → PeekResponse (no side effects)
	Release ReleaseRequest → ReleaseResponse (idempotent)

enum Axis
	0 AXIS_UNSPECIFIED
	1 AXIS_RATE
	2 AXIS_CONCURRENCY
	3 AXIS_TOKEN_BUDGET

message AdmitRequest
	1 policy string
	2 key string
	3 cost int64
	4 hold int64
	5 value int64

message AdmitResponse
	1 decision Decision
	2 lease_id string
	3 lease_expires_at int64
	4 binding_axis string
	5 policy_denied bool
	6 lease_ttl_ms int64

message Caller
	1 domain string
	2 client_id string
	3 region string
	4 priority int64

message CheckManyRequest
	1 policy string
	2 keys repeated string
	3 cost int64

message CheckManyResponse
	1 decisions repeated Decision

message CheckRequest
	1 policy string
	2 key string
	3 cost int64

message CheckResponse
	1 decision Decision

message DebitRequest
	1 policy string
	2 key string
	3 tokens int64

message DebitResponse
	1 decision Decision

message Decision
	1 allowed bool
	2 limit int64
	3 remaining int64
	4 reset_at int64
	5 retry_after_ms int64
	reserved 6 to 15

message DenialEvent
	1 at int64
	2 policy string
	3 key string
	4 axis string
	5 limit int64
	6 remaining int64
	7 retry_after_ms int64

message Forecast
	1 spendable_now int64
	2 next_replenish_at int64
	3 full_at int64

message ForecastRequest
	1 policy string
	2 key string
	3 cost int64

message ForecastResponse
	1 forecast Forecast

message GetSnapshotRequest

message GetSnapshotResponse
	1 snapshot Snapshot

message GuardSummary
	1 name string
	2 limit int64
	3 inflight int64
	4 share double
	5 l_global int64
	6 nodes int64
	7 fenced bool

message HeartbeatRequest
	1 lease_ids repeated string

message HeartbeatResponse
	1 live_ids repeated string
	2 reclaimed_ids repeated string
	3 next_deadline int64

message KeyCount
	1 key string
	2 count int64

message LatencySummary
	1 avg_ms double
	2 p50_ms double
	3 p99_ms double
	4 max_ms double
	5 n int64

message Lease
	1 capacity int64
	2 expiry_ms int64
	3 refresh_interval_ms int64
	4 safe_capacity int64
	5 retry_after_ms int64
	6 limit int64

message MonitorMeta
	1 generated_at int64
	2 window_ms int64
	3 mode string
	4 lens_version string
	5 node_id string

message PeekRequest
	1 policy string
	2 key string

message PeekResponse
	1 decision Decision

message PolicySummary
	1 name string
	2 kind string
	3 strategy string
	4 allowed int64
	5 denied int64
	6 limit int64
	7 latency LatencySummary
	8 top_denied repeated KeyCount
	9 top_requested repeated KeyCount

message ReleaseRequest
	1 lease_id string
	2 dropped bool

message ReleaseResponse

message ReserveRequest
	1 policy string
	2 caller Caller
	3 wants int64
	4 has int64
	5 used int64
	6 axis Axis

message ReserveResponse
	1 lease Lease
	reserved 2 to 15
	reserved owner_redirect

message Snapshot
	1 meta MonitorMeta
	2 policies repeated PolicySummary
	3 guards repeated GuardSummary
	4 recent_denials repeated DenialEvent
	5 raw_json string

message WatchRequest
	1 policy string

message WatchResponse
	1 denial DenialEvent
`

func files() []protoreflect.FileDescriptor {
	return []protoreflect.FileDescriptor{
		throttlekitv1.File_throttlekit_v1_ratelimiter_proto,
		throttlekitv1.File_throttlekit_v1_monitor_proto,
		throttlekitv1.File_throttlekit_v1_fleet_proto,
	}
}

// TestContract compares the descriptors with the table, block by block, so that a failure names what moved.
func TestContract(t *testing.T) {
	t.Parallel()
	want, got := blocks(contract), map[string]string{}
	for _, file := range files() {
		describeFile(file, func(head string, lines []string) {
			got[head] = strings.Join(lines, "\n")
		})
	}
	for head, lines := range want {
		if have, ok := got[head]; !ok {
			t.Errorf("%s is gone", head)
		} else if have != lines {
			t.Errorf("%s differs\n--- contract\n%s\n--- descriptor\n%s", head, lines, have)
		}
	}
	for head := range got {
		if _, ok := want[head]; !ok {
			t.Errorf("%s is new: add it to the contract", head)
		}
	}
}

// TestFileSettings pins what the table cannot show: the syntax, the package, and that no field has a presence, a oneof, a
// packing or a JSON name other than the default of proto3.
func TestFileSettings(t *testing.T) {
	t.Parallel()
	for _, file := range files() {
		if file.Syntax() != protoreflect.Proto3 || file.Package() != "throttlekit.v1" {
			t.Errorf("%s: %s, package %s; want proto3, package throttlekit.v1", file.Path(), file.Syntax(), file.Package())
		}
		if n := file.Extensions().Len(); n > 0 {
			t.Errorf("%s declares %d extensions; want none", file.Path(), n)
		}
		for message := range all(file.Messages()) {
			if n := message.Messages().Len() + message.Enums().Len() + message.Oneofs().Len(); n > 0 {
				t.Errorf("%s nests %d messages, enums or oneofs; want none", message.Name(), n)
			}
			for field := range all(message.Fields()) {
				if want := lowerCamel(string(field.Name())); field.JSONName() != want {
					t.Errorf("%s has the JSON name %s; want %s", field.FullName(), field.JSONName(), want)
				}
				if field.HasOptionalKeyword() {
					t.Errorf("%s is marked optional; want the plain presence of proto3", field.FullName())
				}
			}
		}
	}
}

// TestEncoding pins bytes, written by hand from the encoding's own rules: what a client of another make puts on the wire.
func TestEncoding(t *testing.T) {
	t.Parallel()
	var wire []byte
	for number, value := range map[protowire.Number]uint64{1: 1, 2: 5, 3: 4, 4: 1_700_000_000_000, 5: 7} {
		wire = protowire.AppendTag(wire, number, protowire.VarintType)
		wire = protowire.AppendVarint(wire, value)
	}
	var got throttlekitv1.Decision
	if err := proto.Unmarshal(wire, &got); err != nil {
		t.Fatal(err)
	}
	want := &throttlekitv1.Decision{Allowed: true, Limit: 5, Remaining: 4, ResetAt: 1_700_000_000_000, RetryAfterMs: 7}
	if !proto.Equal(&got, want) {
		t.Errorf("decoded %v; want %v", &got, want)
	}
	if unknown := got.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		t.Errorf("left %d bytes unread", len(unknown))
	}
}

// TestDoorsAgree holds the code of both generators to the same paths and stream shapes as the descriptors.
func TestDoorsAgree(t *testing.T) {
	t.Parallel()
	var want []string
	for _, file := range files() {
		for service := range all(file.Services()) {
			for method := range all(service.Methods()) {
				want = append(want, rpc(fmt.Sprintf("/%s/%s", service.FullName(), method.Name()), method.IsStreamingServer()))
			}
		}
	}

	var viaGRPC []string
	for _, service := range []grpc.ServiceDesc{
		throttlekitv1.RateLimiter_ServiceDesc, throttlekitv1.Monitor_ServiceDesc, throttlekitv1.Fleet_ServiceDesc,
	} {
		for _, method := range service.Methods {
			viaGRPC = append(viaGRPC, rpc("/"+service.ServiceName+"/"+method.MethodName, false))
		}
		for _, stream := range service.Streams {
			viaGRPC = append(viaGRPC, rpc("/"+service.ServiceName+"/"+stream.StreamName, stream.ServerStreams))
		}
	}

	server := connect.NewServer()
	throttlekitv1connect.RegisterRateLimiterHandler(server, throttlekitv1connect.UnimplementedRateLimiterHandler{})
	throttlekitv1connect.RegisterMonitorHandler(server, throttlekitv1connect.UnimplementedMonitorHandler{})
	throttlekitv1connect.RegisterFleetHandler(server, throttlekitv1connect.UnimplementedFleetHandler{})
	var viaConnect []string
	for spec := range server.Specs() {
		viaConnect = append(viaConnect, rpc(spec.Procedure, spec.StreamType == connect.StreamTypeServer))
	}

	slices.Sort(want)
	slices.Sort(viaGRPC)
	slices.Sort(viaConnect)
	if !slices.Equal(viaGRPC, want) {
		t.Errorf("gRPC serves %q; want %q", viaGRPC, want)
	}
	if !slices.Equal(viaConnect, want) {
		t.Errorf("Connect serves %q; want %q", viaConnect, want)
	}
}

// TestConnectIsApart keeps Connect out of programs that speak only gRPC.
func TestConnectIsApart(t *testing.T) {
	t.Parallel()
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pkg.Imports {
		if strings.HasPrefix(path, "connectrpc.com/") {
			t.Errorf("package %s imports %s", pkg.Name, path)
		}
	}
}

// blocks splits a table into its heads and their lines.
func blocks(table string) map[string]string {
	parts := map[string]string{}
	for block := range strings.SplitSeq(strings.TrimSpace(table), "\n\n") {
		head, lines, _ := strings.Cut(block, "\n")
		parts[head] = strings.ReplaceAll(lines, "\t", "")
	}
	return parts
}

func describeFile(file protoreflect.FileDescriptor, emit func(head string, lines []string)) {
	for service := range all(file.Services()) {
		var lines []string
		for method := range all(service.Methods()) {
			lines = append(lines, describeMethod(method))
		}
		slices.Sort(lines)
		emit("service "+string(service.Name()), lines)
	}
	for enum := range all(file.Enums()) {
		var lines []string
		for value := range all(enum.Values()) {
			lines = append(lines, fmt.Sprintf("%d %s", value.Number(), value.Name()))
		}
		emit("enum "+string(enum.Name()), append(lines, describeReserved(enumRanges(enum), enum.ReservedNames())...))
	}
	for message := range all(file.Messages()) {
		fields := slices.SortedFunc(all(message.Fields()), func(a, b protoreflect.FieldDescriptor) int {
			return int(a.Number()) - int(b.Number())
		})
		var lines []string
		for _, field := range fields {
			lines = append(lines, describeField(field))
		}
		emit("message "+string(message.Name()), append(lines, describeReserved(messageRanges(message), message.ReservedNames())...))
	}
}

func describeMethod(method protoreflect.MethodDescriptor) string {
	stream := func(on bool) string {
		if on {
			return "stream "
		}
		return ""
	}
	line := fmt.Sprintf("%s %s%s → %s%s", method.Name(),
		stream(method.IsStreamingClient()), method.Input().Name(),
		stream(method.IsStreamingServer()), method.Output().Name())
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	switch options.GetIdempotencyLevel() {
	case descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
		line += " (no side effects)"
	case descriptorpb.MethodOptions_IDEMPOTENT:
		line += " (idempotent)"
	case descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN:
	}
	return line
}

func describeField(field protoreflect.FieldDescriptor) string {
	label := ""
	if field.Cardinality() != protoreflect.Optional {
		label = field.Cardinality().String() + " "
	}
	kind := field.Kind().String()
	if message := field.Message(); message != nil {
		kind = string(message.Name())
	} else if enum := field.Enum(); enum != nil {
		kind = string(enum.Name())
	}
	return fmt.Sprintf("%d %s %s%s", field.Number(), field.Name(), label, kind)
}

// messageRanges returns the reserved numbers with both ends included; the descriptor of a message excludes the second.
func messageRanges(message protoreflect.MessageDescriptor) [][2]int {
	var ranges [][2]int
	for i := range message.ReservedRanges().Len() {
		r := message.ReservedRanges().Get(i)
		ranges = append(ranges, [2]int{int(r[0]), int(r[1]) - 1})
	}
	return ranges
}

// enumRanges returns the reserved numbers with both ends included, as the descriptor of an enum has them.
func enumRanges(enum protoreflect.EnumDescriptor) [][2]int {
	var ranges [][2]int
	for i := range enum.ReservedRanges().Len() {
		r := enum.ReservedRanges().Get(i)
		ranges = append(ranges, [2]int{int(r[0]), int(r[1])})
	}
	return ranges
}

func describeReserved(ranges [][2]int, names protoreflect.Names) []string {
	var lines []string
	for _, r := range ranges {
		lines = append(lines, fmt.Sprintf("reserved %d to %d", r[0], r[1]))
	}
	for i := range names.Len() {
		lines = append(lines, "reserved "+string(names.Get(i)))
	}
	return lines
}

// all ranges over one of the lists that protoreflect has in place of slices.
func all[D any](list interface {
	Len() int
	Get(i int) D
},
) func(yield func(D) bool) {
	return func(yield func(D) bool) {
		for i := range list.Len() {
			if !yield(list.Get(i)) {
				return
			}
		}
	}
}

func rpc(path string, streams bool) string {
	if streams {
		return path + " (stream)"
	}
	return path
}

// lowerCamel is the rule by which proto3 makes a JSON name from a field name.
func lowerCamel(name string) string {
	var out strings.Builder
	upper := false
	for _, r := range name {
		switch {
		case r == '_':
			upper = true
		case upper:
			out.WriteRune(unicode.ToUpper(r))
			upper = false
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}
