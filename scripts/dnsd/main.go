// Command dnsd is the DNS server of scripts/interop-acme.sh. Every name has the address 127.0.0.1,
// and the words of the file DIR/NAME are the TXT records of NAME.
//
//	dnsd DIR ADDRESS_FILE
//
// It writes the address that it listens on to ADDRESS_FILE, and runs until it is killed.
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

// run serves until reading from its socket fails, which ends a program that is not killed.
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
	root, err := os.OpenRoot(args[0]) // a name in a query cannot lead out of DIR
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
