package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/throttlekit/throttlekit-go/server/internal/origin"
)

// errUnauthenticated marks a caller who may not ask.
var errUnauthenticated = errors.New("server: not authenticated")

// bearerHeader is where a caller may present a secret, beside the header of its door.
const bearerHeader = "authorization"

// keeper knows who may ask a door: with a secret, whoever presents it; without one, callers on this machine.
type keeper struct {
	door   string             // for messages
	header string             // where the secret is presented
	secret *[sha256.Size]byte // digest of the secret; nil admits callers on this machine
	locked bool               // the secret is empty, and nobody can present that
}

// newKeeper is for a door whose secret goes into "x-<door>-secret". A nil secret is none.
func newKeeper(door string, secret *string) keeper {
	k := keeper{door: door, header: "x-" + door + "-secret"}
	if secret != nil {
		digest := sha256.Sum256([]byte(*secret))
		k.secret, k.locked = &digest, *secret == ""
	}
	return k
}

// admit decides whether a caller may ask, before its request is read.
func (k *keeper) admit(header func(name string) string, addr string) error {
	if k.secret == nil {
		if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().Unmap().IsLoopback() {
			return nil
		}
		return fmt.Errorf("%w: this server has no %s secret, so it serves callers on its own machine only", errUnauthenticated, k.door)
	}
	secret := header(k.header)
	if secret == "" {
		secret = bearer(header(bearerHeader))
	}
	// Digests have one length, so the comparison tells nothing about the secret's.
	if digest := sha256.Sum256([]byte(secret)); subtle.ConstantTimeCompare(digest[:], k.secret[:]) == 1 && !k.locked {
		return nil
	}
	return fmt.Errorf("%w: the %s secret is missing or wrong; it goes into %s, or into %s as a bearer token",
		errUnauthenticated, k.door, k.header, bearerHeader)
}

// bearer is the token of an Authorization header, or empty.
func bearer(value string) string {
	scheme, token, _ := strings.Cut(strings.TrimSpace(value), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// admitGRPC is admit for a gRPC call.
func (k *keeper) admitGRPC(ctx context.Context) error {
	addr := ""
	if p, ok := peer.FromContext(ctx); ok {
		addr = p.Addr.String()
	}
	return k.admit(func(name string) string {
		if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
			return values[0]
		}
		return ""
	}, addr)
}

// meant reports why a request over HTTP is not one of this machine, although it comes from here. With a secret it may come from
// anywhere.
func (k *keeper) meant(r *http.Request, bound string) error {
	if k.secret != nil || origin.Meant(r, bound) {
		return nil
	}
	return fmt.Errorf("%w: this server has no %s secret, so it serves callers on its own machine only, who reach it by an address,"+
		" as localhost or as the name it is bound to, and neither proxies nor pages of other sites", errUnauthenticated, k.door)
}

// admitConnect is admit for a call by Connect's protocol.
func (k *keeper) admitConnect(ctx context.Context) error {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return errUnauthenticated
	}
	return k.admit(info.RequestHeader().Get, info.PeerAddr)
}

// admitHTTP is admit for any other request.
func (k *keeper) admitHTTP(r *http.Request, bound string) error {
	return errors.Join(k.admit(r.Header.Get, r.RemoteAddr), k.meant(r, bound))
}
