package rotation

import "time"

// Drain is Config.Drain as it is in effect: how long a superseded generation
// may finish what it carries. For adapters that keep connections of their own.
func (id *Identity) Drain() time.Duration { return id.drain }
