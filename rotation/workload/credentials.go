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

// authInfo carries a connection, which knows its caller, to its calls.
type authInfo struct {
	credentials.CommonAuthInfo
	conn *conn
}

func (authInfo) AuthType() string { return "peercred" }

// ServerHandshake decides what the caller gets. Only new rules change that later: a process
// that runs another file then has given up none of its user's rights by that.
func (p peerCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*conn)
	if !ok {
		_ = raw.Close() // not one of ours
		return nil, nil, fmt.Errorf("accepting a connection: it is a %T", raw)
	}
	names, why := c.listener.decide(c)
	if err := errors.Join(why...); err != nil && len(names) == 0 {
		if n := p.lines.Pass(time.Now()); n > 0 {
			c.listener.log.Warn("rules of a user do not match its process", "uid", c.UID, "gid", c.GID, "pid", c.PID, "times", n, "err", err)
		}
	}
	return c, authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, c}, nil
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

// callerOf returns the connection of a call, nil if it is none of ours.
func callerOf(ctx context.Context) *conn {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, _ := p.AuthInfo.(authInfo)
	return info.conn
}
