package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// rawCodec sends bytes as they are, to write what protobuf-go would not.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

// text appends a string field without looking at what it says.
func text(data []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(data, number, protowire.BytesType), value)
}

func checkRequest(policy, key string, cost int64) []byte {
	data := text(text(nil, 1, policy), 2, key)
	return protowire.AppendVarint(protowire.AppendTag(data, 3, protowire.VarintType), uint64(cost))
}

// checkRaw sends a request byte by byte to the gRPC door.
func checkRaw(ctx context.Context, conn grpc.ClientConnInterface, request []byte) (*throttlekitv1.CheckResponse, error) {
	var res throttlekitv1.CheckResponse
	err := conn.Invoke(ctx, throttlekitv1.RateLimiter_Check_FullMethodName, request, &res, grpc.ForceCodecV2(rawCodec{}))
	return &res, err
}

// Keys of any bytes work and are told apart, whether or not they are the text that proto3 wants.
func TestKeysAreBytes(t *testing.T) {
	t.Parallel()
	keys := []string{
		"", "\x00", "a\x00b", "a\x00", "\x01\x1b[31m\x7f", "line\nbreak\r", "🚦", "é", "e\u0301", "\uFFFD", "\uFFFD\uFFFD",
		"\xff", "\xfe", "\xff\xfe", "\xed\xa0\x80", "half a rune \xf0\x9f", string(make([]byte, 64<<10)), strings.Repeat("\xff", 64<<10),
	}
	s, _ := serve(t, policies(t), local())
	conn, client := dial(t, s), httpClient(t)
	url := "http://" + s.HTTPAddr().String() + throttlekitv1.RateLimiter_Check_FullMethodName
	doors := map[string]func(key string) (*throttlekitv1.CheckResponse, error){
		"grpc": func(key string) (*throttlekitv1.CheckResponse, error) {
			return checkRaw(t.Context(), conn, checkRequest("five", key, 1))
		},
		"http": func(key string) (*throttlekitv1.CheckResponse, error) {
			got := send(t, client, http.MethodPost, url, "application/proto", string(checkRequest("five", key, 1)))
			if got.status != http.StatusOK {
				return nil, fmt.Errorf("%d: %s", got.status, got.body)
			}
			var check throttlekitv1.CheckResponse
			return &check, proto.Unmarshal([]byte(got.body), &check)
		},
	}
	// Both doors lead to the same counters: the second finds one unit gone.
	for i, door := range []string{"grpc", "http"} {
		for _, key := range keys {
			res, err := doors[door](key)
			if err != nil {
				t.Errorf("%s: %d bytes, %.20q: %v", door, len(key), key, err)
				continue
			}
			if want := int64(4 - i); res.GetDecision().GetRemaining() != want {
				t.Errorf("%s: %d bytes, %.20q: %d left, want %d", door, len(key), key, res.GetDecision().GetRemaining(), want)
			}
		}
	}

	many := text(nil, 1, "five")
	for _, key := range []string{"many", "many \xff", "many", "many \xfe"} {
		many = text(many, 2, key)
	}
	var res throttlekitv1.CheckManyResponse
	if err := conn.Invoke(t.Context(), throttlekitv1.RateLimiter_CheckMany_FullMethodName, many, &res, grpc.ForceCodecV2(rawCodec{})); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{4, 4, 3, 4} {
		if got := res.GetDecisions()[i].GetRemaining(); got != want {
			t.Errorf("many, key %d: %d left, want %d", i, got, want)
		}
	}
}

func TestUndecodableRequests(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t), local())
	conn, client := dial(t, s), httpClient(t)
	url := "http://" + s.HTTPAddr().String() + throttlekitv1.RateLimiter_Check_FullMethodName
	for name, request := range map[string][]byte{
		"cut short":       checkRequest("five", "key", 1)[:7],
		"no such type":    {0x0f},
		"field 0":         {0x02, 0x00},
		"cut and bytes":   append(text(nil, 2, "\xff"), 0x0a, 0x05, 'a'),
		"endless varint":  bytes.Repeat([]byte{0xff}, 20),
		"unclosed group":  {0x23},
		"key as a number": {0x10, 0x01}, // of another type than declared: unknown, so the policy is missing
	} {
		want := codes.InvalidArgument
		if name == "key as a number" {
			want = codes.NotFound
		}
		if _, err := checkRaw(t.Context(), conn, request); status.Code(err) != want {
			t.Errorf("grpc, %s: got %v, want %v", name, err, want)
		}
		got := send(t, client, http.MethodPost, url, "application/proto", string(request))
		if want == codes.InvalidArgument && (got.status != http.StatusBadRequest || !strings.Contains(got.body, `"invalid_argument"`)) {
			t.Errorf("http, %s: got %d %s", name, got.status, got.body)
		}
	}
	if _, err := checkRaw(t.Context(), conn, checkRequest("n\xffne", "key", 1)); status.Code(err) != codes.NotFound {
		t.Errorf("a policy of no text: got %v, want NOT_FOUND", err)
	}
}

// FuzzDecode holds the decoder against protobuf-go: what that accepts reads the same, and what is refused is refused
// for more than its text.
func FuzzDecode(f *testing.F) {
	f.Add(checkRequest("five", "key", 1))
	f.Add(checkRequest("five", "\xff", -1))
	f.Add(append(checkRequest("a", "b", 2), checkRequest("c", "\xfe", 3)...))
	f.Add([]byte{0x0a, 0x05, 'a'})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, message := range []proto.Message{new(throttlekitv1.CheckRequest), new(throttlekitv1.CheckManyRequest)} {
			byHand, theirs := proto.Clone(message), proto.Clone(message)
			byHandErr, theirErr := decodeBytes(data, byHand.ProtoReflect()), proto.Unmarshal(data, theirs)
			switch {
			case theirErr == nil && byHandErr != nil:
				t.Fatalf("refused what protobuf-go accepts: %v", byHandErr)
			case theirErr == nil && !proto.Equal(byHand, theirs):
				t.Fatalf("got %v, protobuf-go reads %v", byHand, theirs)
			case theirErr != nil && byHandErr == nil && !strings.Contains(theirErr.Error(), "UTF-8"):
				t.Fatalf("accepted what protobuf-go refuses: %v", theirErr)
			}
		}
	})
}

// FuzzCheck sends any policy, key and cost through the gRPC door. What a server covers varies from run to run, which
// keeps the engine minimizing: run it with -fuzzminimizetime 5x.
func FuzzCheck(f *testing.F) {
	s, _ := serve(f, policies(f), local())
	conn := dial(f, s)
	f.Add("five", "key", int64(1))
	f.Add("five", "\xff\x00", int64(0))
	f.Add("", "", int64(-1))
	f.Add("n\xffne", strings.Repeat("k", 1000), int64(1<<53))
	f.Fuzz(func(t *testing.T, policy, key string, cost int64) {
		res, err := checkRaw(t.Context(), conn, checkRequest(policy, key, cost))
		want := codes.OK
		switch {
		case policy != "five":
			want = codes.NotFound
		case cost < 0 || cost > 1<<53-1 || len(key) > 64<<10:
			want = codes.InvalidArgument
		}
		if status.Code(err) != want {
			t.Fatalf("got %v, want %v", err, want)
		}
		d := res.GetDecision()
		if err == nil && (d == nil || d.GetAllowed() != (d.GetRetryAfterMs() == 0) || d.GetLimit() != 5 || d.GetRemaining() < 0 || d.GetRemaining() > 5) {
			t.Fatalf("no decision to make: %v", d)
		}
	})
}
