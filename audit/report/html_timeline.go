package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit/internal/wording"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// A timeline is drawn twice, for wide and for narrow screens: the letters in one picture
// that shrinks would become too small to read. Lengths are in pixels.
const (
	wideTimeline, narrowTimeline = 960, 320

	// timelineEdge is the room beside the first and the last mark.
	timelineEdge = 14
	// pastShare is the part of the width for the past, if any certificate has ended.
	pastShare  = 0.25
	laneHeight = 48
	// laneMark is the distance from the top of a lane to the middle of its marks.
	laneMark   = 29
	axisHeight = 26
	// markGap is the least distance between two marks; nearer ones become one mark.
	markGap = 2
	// tickEvery is the least distance between two labels of the axis.
	tickEvery = 40
	// titleNames bounds the certificates that the title of a mark names.
	titleNames = 3
)

const year = 365 * wording.Day

// timeSteps are the ticks of a timeline. It ends at one of them.
var timeSteps = []struct {
	after humantime.Seconds
	label string
}{
	{wording.Hour, "1 h"}, {6 * wording.Hour, "6 h"}, {wording.Day, "1 d"}, {7 * wording.Day, "7 d"}, {30 * wording.Day, "30 d"}, {90 * wording.Day, "90 d"},
	{year, "1 y"}, {3 * year, "3 y"}, {10 * year, "10 y"}, {30 * year, "30 y"}, {100 * year, "100 y"},
	{1000 * year, "1000 y"}, {10_000 * year, "10 000 y"},
}

// leastEnd is the index in timeSteps at which the shortest timeline ends: one day.
const leastEnd = 2

// timeline is a picture of when certificates end. Its scale is logarithmic in both
// directions from the present: hours matter for a certificate that ends today, and not
// for one that ends in ten years.
type timeline struct {
	Class         string
	Width, Height int
	Now           int // x of the present
	Bottom        int // y of the axis
	Ticks         []tick
	Lanes         []lane
}

type tick struct {
	X     int
	Label string
}

// lane holds the marks of one state. A state without a certificate has no lane.
type lane struct {
	Class, Word string
	Top, Line   int
	Marks       []mark
}

// mark stands for one certificate, or for several that end at about the same time.
type mark struct {
	X, Y int
	Path string
	// Count is empty for one certificate.
	Count string
	// Base is the distance from Y down to the base line of the count.
	Base  int
	Title string
	// First and Last are the dates of the first and the last end, as rows have them.
	First, Last string
}

type scale struct {
	// now is the x of the present; past and future are the pixels on both sides of it.
	now, past, future float64
	first, last       humantime.Seconds
}

// timelines draws the rows of certificates, ordered by their ends. There is no timeline
// without certificates.
func (h *htmlRenderer) timelines() []timeline {
	var dated []*pageRow
	for i := range h.rows {
		if h.rows[i].dated {
			dated = append(dated, &h.rows[i])
		}
	}
	if len(dated) == 0 {
		return nil
	}
	slices.SortStableFunc(dated, func(a, b *pageRow) int { return a.end.Compare(b.end) })
	return []timeline{draw("wide", wideTimeline, dated), draw("narrow", narrowTimeline, dated)}
}

// draw draws rows that are ordered by their ends. Each rank that occurs has a lane, the
// worst at the top.
func draw(class string, width int, rows []*pageRow) timeline {
	s := newScale(float64(width), rows[0].left, rows[len(rows)-1].left)
	t := timeline{Class: class, Width: width, Now: int(s.now)}
	for rank := len(rankNames) - 1; rank >= 0; rank-- {
		l := lane{Class: rankNames[rank].class, Word: rankNames[rank].word, Top: t.Bottom, Line: t.Bottom + laneMark}
		l.Marks = s.marks(rank, l.Line, rows)
		if len(l.Marks) > 0 {
			t.Lanes = append(t.Lanes, l)
			t.Bottom += laneHeight
		}
	}
	t.Height, t.Ticks = t.Bottom+axisHeight, s.ticks()
	return t
}

// newScale makes a scale on which the ends from first to last have room, both as seconds
// from now. The past gets room only if first is negative.
func newScale(width float64, first, last humantime.Seconds) scale {
	s := scale{now: timelineEdge, first: min(first, 0), last: timeSteps[leastEnd].after}
	if first < 0 {
		s.past = width * pastShare
		s.now += s.past
		s.first = min(first, -timeSteps[leastEnd].after)
	}
	s.future = width - timelineEdge - s.now
	for _, step := range timeSteps[leastEnd:] {
		if s.last = step.after; step.after >= last {
			break
		}
	}
	return s
}

// x returns the position of an end in d from now. log(1+h) of the hours is 0 at the
// present, so that both directions meet there. What lies beyond the scale is at its edge.
func (s *scale) x(d humantime.Seconds) float64 {
	hours := func(d humantime.Seconds) float64 { return math.Abs(float64(d)) / float64(wording.Hour) }
	share := func(whole humantime.Seconds) float64 {
		return min(1, math.Log1p(hours(d))/math.Log1p(hours(whole)))
	}
	if d < 0 {
		return s.now - s.past*share(s.first)
	}
	return s.now + s.future*share(s.last)
}

// ticks are labelled from the present outward, as far as labels have room.
func (s *scale) ticks() (out []tick) {
	out = append(out, tick{int(s.now), "now"})
	for side, edge := range map[humantime.Seconds]humantime.Seconds{-1: -s.first, 1: s.last} {
		at := s.now
		for _, step := range timeSteps {
			x := s.x(side * step.after)
			if step.after > edge || math.Abs(x-at) < tickEvery {
				continue
			}
			label := step.label
			if side < 0 {
				label = "−" + label
			}
			out = append(out, tick{int(x), label})
			at = x
		}
	}
	slices.SortFunc(out, func(a, b tick) int { return a.X - b.X })
	return out
}

// cluster is the certificates that one mark stands for; it is drawn at their mean.
type cluster struct {
	rows []*pageRow
	sum  float64 // of their x
}

func (c *cluster) x() float64  { return c.sum / float64(len(c.rows)) }
func (c *cluster) radius() int { return markRadius(len(c.rows)) }

// overlaps reports whether the marks of c and the next cluster would overlap. A
// certificate that has ended never shares a mark with one that has not.
func (c *cluster) overlaps(next *cluster) bool {
	return (c.rows[0].left < 0) == (next.rows[0].left < 0) && next.x()-c.x() < float64(c.radius()+next.radius()+markGap)
}

// marks returns the marks of one rank. The rows are ordered by their ends, so that only
// neighbours can overlap.
func (s *scale) marks(rank, y int, rows []*pageRow) (out []mark) {
	var all []cluster
	for _, r := range rows {
		if r.rank != rank {
			continue
		}
		all = append(all, cluster{[]*pageRow{r}, s.x(r.left)})
		// A mark that has grown may reach the one before it.
		for n := len(all); n > 1 && all[n-2].overlaps(&all[n-1]); n = len(all) {
			all[n-2].rows = append(all[n-2].rows, all[n-1].rows...)
			all[n-2].sum += all[n-1].sum
			all = all[:n-1]
		}
	}
	for _, c := range all {
		n, radius := len(c.rows), c.radius()
		m := mark{
			X: int(c.x()), Y: y, Path: markPath(rank, radius), Base: 4,
			Title: markTitle(c.rows), First: c.rows[0].Ends, Last: c.rows[n-1].Ends,
		}
		if n > 1 {
			m.Count = short(n)
		}
		if rankNames[rank].class == "warn" {
			m.Base = radius - 5 // where a triangle is wide
		}
		out = append(out, m)
	}
	return out
}

// markRadius is large enough for the text that [short] makes of n, 1 to 4 characters.
func markRadius(n int) int {
	if n == 1 {
		return 6
	}
	return [...]int{9, 11, 13, 16}[len(short(n))-1]
}

// markPath is the outline of a mark around 0,0 (SVG 2 §9.3), another one for each rank.
func markPath(rank, r int) string {
	switch rankNames[rank].class {
	case "crit": // a diamond
		r += 2
		return fmt.Sprintf("M0-%[1]dL%[1]d 0L0 %[1]dL-%[1]d 0Z", r)
	case "warn": // a triangle
		return fmt.Sprintf("M0-%[1]dL%[1]d %[2]dL-%[1]d %[2]dZ", r+3, r-1)
	case "unchecked": // a square
		return fmt.Sprintf("M-%[1]d-%[1]dH%[1]dV%[1]dH-%[1]dZ", r-1)
	}
	return fmt.Sprintf("M-%[1]d 0A%[1]d %[1]d 0 1 1 %[1]d 0A%[1]d %[1]d 0 1 1-%[1]d 0Z", r)
}

// short formats a number of certificates in at most four characters. A page has at most
// maxPageRows of them.
func short(n int) string {
	switch {
	case n < 1000:
		return fmt.Sprint(n)
	case n < 9950:
		return fmt.Sprintf("%.1fk", float64(n)/1000)
	}
	return fmt.Sprintf("%.0fk", float64(n)/1000)
}

// markTitle is shown when a pointer rests on a mark, and read aloud by screen readers.
func markTitle(in []*pageRow) string {
	when := func(r *pageRow) string {
		if r.left < 0 {
			return "ended " + r.Left
		}
		return "ends in " + r.Left
	}
	first, last := in[0], in[len(in)-1]
	if len(in) == 1 {
		return first.Name + " " + when(first)
	}
	var names []string
	for _, r := range in[:min(titleNames, len(in))] {
		names = append(names, r.Name)
	}
	text := fmt.Sprintf("%d certificates: the first %s, the last %s: %s", len(in), when(first), when(last), strings.Join(names, ", "))
	if more := len(in) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
