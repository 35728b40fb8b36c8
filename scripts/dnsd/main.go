// Command dnsd is the DNS server of scripts/interop-acme.sh: every name is at
// 127.0.0.1, and its TXT records are the lines of the file of its name in DIR.
//
//	dnsd DIR ADDRESS_FILE
//
// The address that it listens on goes into ADDRESS_FILE. It runs until it is killed.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/artstore/artstore-pki/internal/dnstest"
	"github.com/artstore/artstore-pki/internal/durable"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dnsd:", err)
		os.Exit(1) //nolint:forbidigo // main ends the process
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("want DIR and ADDRESS_FILE")
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	if err := durable.WriteFile(args[1], []byte(conn.LocalAddr().String()+"\n"), durable.Public); err != nil {
		return err
	}
	root, err := os.OpenRoot(args[0]) // a name in a query leads nowhere else
	if err != nil {
		return fmt.Errorf("opening the records: %w", err)
	}
	return dnstest.Serve(conn, func(name string) []string {
		data, err := root.ReadFile(name)
		if err != nil {
			return nil // no such record
		}
		return strings.Fields(string(data))
	})
}
