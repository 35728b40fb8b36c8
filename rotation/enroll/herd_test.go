package enroll_test

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// kolmogorovSmirnov is the largest distance between the distribution of sample
// and the uniform one on [from, to].
func kolmogorovSmirnov(sample []float64, from, to float64) (d float64) {
	slices.Sort(sample)
	n := float64(len(sample))
	for i, x := range sample {
		f := min(max((x-from)/(to-from), 0), 1)
		d = max(d, float64(i+1)/n-f, f-float64(i)/n)
	}
	return d
}

// TestRenewalPointsAreUniform expects that the renewal points of 1 000 identities are
// uniform in [0.60, 0.70] of their life. The critical value for alpha 0.01 and a large
// sample is 1.628/√n. Samples that are slightly not uniform exceed it.
func TestRenewalPointsAreUniform(t *testing.T) {
	const n, life = 1000, 24 * time.Hour
	r := rand.New(rand.NewPCG(4, 2026))
	received := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	critical := 1.628 / math.Sqrt(n)
	points, skewed, narrow := make([]float64, n), make([]float64, n), make([]float64, n)
	for i := range points {
		at := enroll.Planned(received, received, received.Add(life), 0, r.Float64())
		points[i] = at.Sub(received).Hours() / life.Hours()
		u := r.Float64()
		skewed[i] = 0.60 + 0.10*math.Pow(u, 1.2)
		narrow[i] = 0.605 + 0.09*u
	}
	if d := kolmogorovSmirnov(points, lifetime.RenewFrom, lifetime.RenewTo); d > critical {
		t.Errorf("distance from uniform %.4f, critical %.4f", d, critical)
	}
	for name, sample := range map[string][]float64{"skewed": skewed, "narrow": narrow} {
		if d := kolmogorovSmirnov(sample, lifetime.RenewFrom, lifetime.RenewTo); d <= critical {
			t.Errorf("the test has no power: a %s sample is only %.4f from uniform, critical %.4f", name, d, critical)
		}
	}
}

// fleet simulates services by the functions that plan their requests. Times are offsets
// from its begin.
type fleet struct {
	life       time.Duration
	down, back time.Duration // the authority does not answer in between
	random     *rand.Rand
	retry      func(enroll.Retry) time.Duration
	queue      events
	served     []time.Duration
	renewed    []time.Duration // those of served that are renewals
	late       int             // renewals that came after the end although the authority had been back for half of what was left
}

type event struct {
	at       time.Duration
	agent    *member
	renewal  bool
	failures int
}

type member struct{ notAfter, received time.Duration }

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// run simulates n services until the given time, from a state where their
// certificates are of any age.
func (f *fleet) run(n int, until time.Duration) {
	every := enroll.TrustEvery(0, f.life)
	for range n {
		m := &member{received: -time.Duration(0.65 * f.random.Float64() * float64(f.life))}
		m.notAfter = m.received + f.life
		heap.Push(&f.queue, event{at: max(0, f.due(m)), agent: m, renewal: true})
		for range 2 { // the bundle and the lists
			heap.Push(&f.queue, event{at: time.Duration(f.random.Float64() * float64(every)), agent: m})
		}
	}
	for f.queue.Len() > 0 && f.queue[0].at < until {
		e := heap.Pop(&f.queue).(event)
		if e.at >= f.down && e.at < f.back {
			e.failures++
			heap.Push(&f.queue, f.again(e, every))
			continue
		}
		f.served = append(f.served, e.at)
		if e.renewal {
			f.take(e)
		}
		e.failures = 0
		e.at += enroll.Look(0, every, 0, f.random.Float64())
		if e.renewal {
			e.at = f.due(e.agent)
		}
		heap.Push(&f.queue, e)
	}
}

func (f *fleet) due(m *member) time.Duration {
	epoch := time.Time{}.Add(100 * 365 * 24 * time.Hour)
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	return enroll.Planned(at(m.received), at(m.received), at(m.notAfter), 0, f.random.Float64()).Sub(epoch)
}

func (f *fleet) again(e event, every time.Duration) event {
	if e.renewal {
		e.at += f.retry(enroll.Retry{Failures: e.failures, Life: f.life, Remaining: e.agent.notAfter - e.at, U: f.random.Float64()})
	} else {
		e.at += enroll.Look(e.failures, every, 0, f.random.Float64())
	}
	return e
}

func (f *fleet) take(e event) {
	f.renewed = append(f.renewed, e.at)
	if left := e.agent.notAfter - f.back; e.at > e.agent.notAfter && e.agent.received < f.back && left > time.Minute {
		f.late++
	}
	e.agent.received, e.agent.notAfter = e.at, e.at+f.life
}

// peak is the largest number of times in a bucket at or after from.
func peak(times []time.Duration, from, bucket time.Duration) (most int) {
	counts := map[time.Duration]int{}
	for _, at := range times {
		if at >= from {
			counts[(at-from)/bucket]++
		}
	}
	for _, n := range counts {
		most = max(most, n)
	}
	return most
}

// TestNoHerdAfterOutage simulates 1 000 services that poll, and an authority that is away for up
// to half a life. When it is back, no interval has three times the requests of a normal one. An
// interval has some 340 requests, so that chance changes their number by 5 % only.
// Renewals alone, which are 3 to 10 % of all requests, exceed their normal rate by far: those of
// twelve hours are made within 20 min, some 570 of a thousand services in the first ten. To spread
// them further would let services wait that work again sooner otherwise.
func TestNoHerdAfterOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	const agents = 1000
	for _, c := range []struct {
		life, outage, bucket time.Duration
	}{
		{24 * time.Hour, 6 * time.Hour, 10 * time.Minute},
		{24 * time.Hour, 12 * time.Hour, 10 * time.Minute},
		{time.Hour, 15 * time.Minute, 90 * time.Second},
		{time.Hour, 30 * time.Minute, 90 * time.Second},
		{15 * time.Minute, 7*time.Minute + 30*time.Second, 20 * time.Second},
	} {
		t.Run(fmt.Sprintf("%v of %v", c.outage, c.life), func(t *testing.T) {
			bucket, down := c.bucket, 3*c.life
			worst := 0.0
			for seed := range uint64(2) {
				f := fleet{life: c.life, down: down, back: down + c.outage, random: rand.New(rand.NewPCG(seed, 7)), retry: enroll.Retry.Delay}
				f.run(agents, f.back+2*c.life)
				quiet := 0
				for _, at := range f.served {
					if at >= c.life && at < down {
						quiet++
					}
				}
				steady := float64(quiet) / float64((down-c.life)/bucket)
				share := float64(peak(f.served, f.back, bucket)) / steady
				worst = max(worst, share)
				if share > 3 {
					t.Errorf("seed %d: a peak of %.2f times the steady rate of %.0f per %v", seed, share, steady, bucket)
				}
				if f.late > 0 {
					t.Errorf("seed %d: %d certificates expired although the authority was back in time", seed, f.late)
				}
				if seed == 0 {
					t.Logf("renewals per bucket: %.1f quiet, peak %d", float64(agents)*bucket.Seconds()/(0.65*c.life.Seconds()), peak(f.renewed, f.back, bucket))
				}
			}
			t.Logf("worst peak %.2f", worst)
		})
	}
}

// TestHerdIsSeen is the same simulation with pauses of two minutes at most, as is usual. It shows
// that the simulation finds a herd.
func TestHerdIsSeen(t *testing.T) {
	const life, down, outage = 24 * time.Hour, 72 * time.Hour, 12 * time.Hour
	f := fleet{life: life, down: down, back: down + outage, random: rand.New(rand.NewPCG(1, 7)), retry: func(r enroll.Retry) time.Duration {
		return time.Duration(r.U * float64(min(time.Second<<min(r.Failures, 20), 2*time.Minute)))
	}}
	f.run(1000, f.back+life)
	quiet := 0
	for _, at := range f.served {
		if at < down {
			quiet++
		}
	}
	if got, steady := peak(f.served, f.back, 10*time.Minute), quiet/int(down/(10*time.Minute)); got <= 3*steady {
		t.Errorf("peak %d, before %d: want a herd", got, steady)
	}
}

func TestLook(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		failures    int
		every, asks time.Duration
		u           float64
		want        time.Duration
	}{
		{0, hour, 0, 0.5, hour}, {0, hour, 0, 0, 54 * time.Minute}, {1, hour, 0, 1, time.Second}, {1, hour, 0, 0, 500 * time.Millisecond},
		{11, hour, 0, 1, 1024 * time.Second}, {12, hour, 0, 0.5, hour}, {1 << 40, hour, 0, 1, 66 * time.Minute},
		{1, hour, time.Minute, 1, 61 * time.Second}, {1, hour, 24 * hour, 0, hour}, {1, time.Second, 0, 0.5, time.Second},
		{20, 10 * time.Minute, 30 * time.Minute, 1, 31 * time.Minute}, {20, hour, time.Minute, 0.5, hour}, // Retry-After after many failures
	} {
		if got := enroll.Look(c.failures, c.every, c.asks, c.u); got != c.want {
			t.Errorf("Look(%d, %v, %v, %v) = %v, want %v", c.failures, c.every, c.asks, c.u, got, c.want)
		}
	}
}
