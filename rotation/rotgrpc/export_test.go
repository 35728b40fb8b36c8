package rotgrpc

// Lanes counts the ClientConns that are not closed yet.
func Lanes(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lanes)
}
