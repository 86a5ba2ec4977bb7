package client

import (
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// codec is grpc-go's protobuf codec, but lets the text fields of a request be any bytes. The contract has its keys as
// proto3 strings, which protobuf-go refuses to encode unless they are UTF-8; to a limiter a key is bytes. The usual
// request pays nothing for it.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(grpcproto.Name)} }

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	data, err := c.CodecV2.Marshal(v)
	if err == nil {
		return data, nil
	}
	message, ok := v.(proto.Message)
	if !ok {
		return nil, err
	}
	raw, bytesErr := encodeBytes(message.ProtoReflect())
	if bytesErr != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(raw)}, nil
}

// encodeBytes encodes with the text fields written by hand. Fields of nested messages get no such help.
func encodeBytes(message protoreflect.Message) ([]byte, error) {
	var data []byte
	rest := message.New()
	message.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Kind() != protoreflect.StringKind:
			rest.Set(field, v)
		case field.IsList():
			for i := range v.List().Len() {
				data = appendText(data, field, v.List().Get(i))
			}
		default:
			data = appendText(data, field, v)
		}
		return true
	})
	return proto.MarshalOptions{}.MarshalAppend(data, rest.Interface())
}

func appendText(data []byte, field protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	data = protowire.AppendTag(data, field.Number(), protowire.BytesType)
	return protowire.AppendString(data, v.String())
}
