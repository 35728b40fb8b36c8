package workload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/artstore/artstore-pki/internal/lograte"
)

// peerCredentials are the credentials of gRPC for connections of a [listener]. There is no
// cryptography: the kernel says who the peer is, and no other process sees the bytes.
type peerCredentials struct{ lines *lograte.Gate }

// authInfo carries the caller of a connection to its calls.
type authInfo struct {
	credentials.CommonAuthInfo
	caller caller
}

func (authInfo) AuthType() string { return "peercred" }

// ServerHandshake decides what the caller gets. It is decided once for a connection: a process
// that runs another file later has given up none of its user's rights by that.
func (p peerCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*conn)
	if !ok {
		_ = raw.Close() // not one of ours
		return nil, nil, fmt.Errorf("accepting a connection: it is a %T", raw)
	}
	who := c.caller
	names, why := c.listener.identitiesOf(c)
	who.identities = names
	if err := errors.Join(why...); err != nil && len(names) == 0 {
		if n := p.lines.Pass(time.Now()); n > 0 {
			c.listener.log.Warn("rules of a user do not match its process", "uid", who.UID, "gid", who.GID, "pid", who.PID, "times", n, "err", err)
		}
	}
	return c, authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, who}, nil
}

func (peerCredentials) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	_ = raw.Close() // unused
	return nil, nil, errors.New("these credentials are for servers")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

// OverrideServerName is deprecated in gRPC and does nothing.
func (peerCredentials) OverrideServerName(string) error { return nil }

// callerOf returns who makes a call.
func callerOf(ctx context.Context) (caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, false
	}
	info, ok := p.AuthInfo.(authInfo)
	return info.caller, ok
}
