package server

import (
	"context"
	"io"

	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // clients of other makes may compress
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// decode is proto.Unmarshal, but lets the text fields of message be any bytes. The contract has its keys as proto3
// strings, which protobuf-go refuses unless they are UTF-8; to a limiter a key is bytes, and there are encoders that
// never look. The usual request pays nothing for it.
func decode(data []byte, message proto.Message) error {
	err := proto.Unmarshal(data, message)
	if err != nil && decodeBytes(data, message.ProtoReflect()) == nil {
		return nil
	}
	return err
}

// decodeBytes decodes with the text fields set by hand. Fields of nested messages get no such help.
func decodeBytes(data []byte, message protoreflect.Message) error {
	proto.Reset(message.Interface())
	fields := message.Descriptor().Fields()
	var rest []byte
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeField(data)
		if size < 0 {
			return protowire.ParseError(size)
		}
		field := fields.ByNumber(number)
		if field == nil || field.Kind() != protoreflect.StringKind || kind != protowire.BytesType {
			rest = append(rest, data[:size]...)
		} else {
			_, _, tag := protowire.ConsumeTag(data)
			raw, _ := protowire.ConsumeBytes(data[tag:])
			text := protoreflect.ValueOfString(string(raw))
			if field.IsList() {
				message.Mutable(field).List().Append(text)
			} else {
				message.Set(field, text)
			}
		}
		data = data[size:]
	}
	return proto.UnmarshalOptions{Merge: true}.Unmarshal(rest, message.Interface())
}

// grpcCodec is grpc-go's protobuf codec with decode.
type grpcCodec struct{ encoding.CodecV2 }

func newGRPCCodec() grpcCodec { return grpcCodec{encoding.GetCodecV2(grpcproto.Name)} }

// envelope carries a message through grpc-go to the codec, and the codec's complaint back.
type envelope struct {
	message any
	err     error
}

// Unmarshal implements [encoding.CodecV2]. For an envelope it reports success even when it fails: grpc-go answers
// INTERNAL to an error before the handler hears of it, and a request that cannot be decoded is the caller's mistake.
func (c grpcCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if e, ok := v.(*envelope); ok {
		e.err = c.unmarshal(data, e.message)
		return nil
	}
	return c.unmarshal(data, v)
}

func (c grpcCodec) unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return decode(buffer.ReadOnlyData(), message)
}

// connectCodec is Connect's protobuf codec with decode.
type connectCodec struct{ *connectproto.BinaryCodec }

// UnmarshalRead implements [connect.Codec].
func (c connectCodec) UnmarshalRead(ctx context.Context, src io.Reader, v any) error {
	message, ok := v.(proto.Message)
	if !ok {
		return c.BinaryCodec.UnmarshalRead(ctx, src, v)
	}
	data, err := io.ReadAll(src) // bounded by Connect
	if err != nil {
		return err
	}
	return decode(data, message)
}
