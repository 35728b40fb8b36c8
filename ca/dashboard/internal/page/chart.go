package page

import (
	"fmt"
	"slices"
)

// Chart is numbers over time, as bars. The letters beside it are HTML, so that they keep their size on a
// narrow screen.
type Chart struct {
	Caption string
	Bars    []Bar
	Series  []string // names of the parts of a bar, from below
	Classes []string // of the parts
	From    string   // below the first bar
	To      string   // below the last one
}

// Bar is one step of time.
type Bar struct {
	Label string
	Parts []int64
}

func (b Bar) sum() (n int64) {
	for _, p := range b.Parts {
		n += p
	}
	return n
}

// Size of the drawing, in its own units.
const (
	barWidth, barGap = 10, 2
	chartHeight      = 100
)

// Width is that of the drawing.
func (c *Chart) Width() int { return max(1, len(c.Bars)*(barWidth+barGap)-barGap) }

// Height is that of the drawing.
func (*Chart) Height() int { return chartHeight }

// Most is the sum of the highest bar.
func (c *Chart) Most() (most int64) {
	for _, b := range c.Bars {
		most = max(most, b.sum())
	}
	return most
}

// rect is one part of a bar.
type rect struct {
	Class, Title        string
	X, Y, Width, Height int
}

// Rects are the parts of all bars that are not zero. What is not zero is at least one unit high.
func (c *Chart) Rects() (out []rect) { //nolint:revive // the template is who calls it
	most := max(1, c.Most())
	for i, b := range c.Bars {
		y := chartHeight
		for s, n := range b.Parts {
			if n <= 0 {
				continue
			}
			h := min(y, max(1, int(n*chartHeight/most)))
			y -= h
			out = append(out, rect{Class: c.Classes[s], Title: fmt.Sprintf("%s: %d %s", b.Label, n, c.Series[s]),
				X: i * (barWidth + barGap), Y: y, Width: barWidth, Height: h})
		}
	}
	return out
}

// Legend has the series with their classes and sums.
func (c *Chart) Legend() (out []Link) {
	for s, name := range c.Series {
		var n int64
		for _, b := range c.Bars {
			n += b.Parts[s]
		}
		out = append(out, Link{Class: c.Classes[s], Count: fmt.Sprint(n), Text: name})
	}
	return out
}

// Numbers is the same as a table, without the steps in which nothing was.
func (c *Chart) Numbers() *Table {
	t := &Table{Caption: c.Caption, Columns: slices.Concat([]string{"Time (UTC)"}, c.Series)}
	for _, b := range c.Bars {
		if b.sum() == 0 {
			continue
		}
		r := []Cell{Text(b.Label)}
		for _, n := range b.Parts {
			r = append(r, Text(fmt.Sprint(n)))
		}
		t.Rows = append(t.Rows, r)
	}
	return t
}
