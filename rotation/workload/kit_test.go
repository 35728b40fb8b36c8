//go:build linux

package workload

import (
	"strconv"

	"google.golang.org/grpc"
)

func numeral(n int) string { return strconv.Itoa(n) }

var streamOfSVIDs = grpc.StreamDesc{StreamName: "FetchX509SVID", ServerStreams: true}
