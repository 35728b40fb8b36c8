package serving

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// NewGroup returns a group for the parts of a service and their context: the first part that
// fails ends the others. The command defers stop behind the Close of what the parts use: stop
// ends the parts and waits for them. A start that fails half-way would otherwise close an
// identity or a record that a running part still uses.
//
// stop returns no error. After a complete run the command has had it from group.Wait, and
// after a start that failed the reason is the error of the start.
func NewGroup(ctx context.Context) (group *errgroup.Group, parts context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	group, parts = errgroup.WithContext(ctx)
	return group, parts, func() {
		cancel()
		_ = group.Wait()
	}
}
