// Package dnstest answers DNS for tests of ACME: every name is at 127.0.0.1, and
// has the TXT records that the test says. Only tests import it.
//
//	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
//	go dnstest.Serve(conn, func(name string) []string { return records[name] })
package dnstest

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// ttl is 0, so that resolvers do not cache records that a test changes.
const ttl = 0

// Serve answers queries on conn until it is closed. txt gets names in lower
// case, without the dot at the end.
func Serve(conn net.PacketConn, txt func(name string) []string) error {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a query: %w", err)
		}
		reply, err := answer(buf[:n], txt)
		if err != nil {
			continue // it is no query, so it gets no reply, as from other servers
		}
		if _, err := conn.WriteTo(reply, from); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("answering a query: %w", err)
		}
	}
}

func answer(query []byte, txt func(string) []string) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	msg := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: head.ID, Response: true, Authoritative: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	record := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: ttl}
	switch q.Type {
	case dnsmessage.TypeA:
		msg.Answers = []dnsmessage.Resource{{Header: record, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	case dnsmessage.TypeTXT:
		for _, text := range txt(strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))) {
			msg.Answers = append(msg.Answers, dnsmessage.Resource{Header: record, Body: &dnsmessage.TXTResource{TXT: []string{text}}})
		}
	}
	return msg.Pack()
}
