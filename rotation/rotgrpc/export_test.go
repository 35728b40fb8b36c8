package rotgrpc

import "google.golang.org/grpc/credentials"

// Lanes counts the ClientConns that are not closed yet.
func Lanes(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

// ClientCredentials are those that c connects with.
func ClientCredentials(c *Client) credentials.TransportCredentials {
	return clientCredentials{c.transport}
}
