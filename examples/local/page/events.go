package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/apns/apnstest"
)

const (
	tick       = 100 * time.Millisecond // how often a stream of events looks for messages
	aliveTicks = 150                    // after how many ticks without an event a comment is sent
	maxBatch   = 200                    // messages in one event; of more, the latest
	floodTicks = 3                      // how many ticks are between two looks after more than maxBatch
	maxFirst   = 1000                   // messages in the first event
)

// A batch is an event with messages that have arrived.
type batch struct {
	Messages []summary `json:"messages"` // in the order of their numbers
	Skipped  int       `json:"skipped"`  // how many passed the filter and were too many to send
	counts
}

// add adds the messages that have arrived since, and keeps at most limit, the latest.
func (b *batch) add(more batch, limit int) {
	b.Messages = append(b.Messages, more.Messages...)
	if n := len(b.Messages) - limit; n > 0 {
		b.Messages = b.Messages[n:]
		b.Skipped += n
	}
	b.Skipped += more.Skipped
	b.counts = more.counts
}

// counts are of the messages since the last time that they were cleared.
type counts struct {
	Total   int `json:"total"`
	Dropped int `json:"dropped"` // older ones that are not kept any more
}

// A follower looks for messages on behalf of one client.
type follower struct {
	page   *Page
	filter filter
	seen   int // the number of the last message that it has looked at
	clears int // Page.cleared when it last looked
}

// next returns the messages that have arrived since the last call, and whether messages were
// cleared. It returns at most limit messages, the latest.
func (f *follower) next(limit int) (b batch, cleared bool) {
	floor := f.page.floor()
	cleared, f.clears = floor != f.clears, floor
	f.seen = max(f.seen, floor)
	records := f.page.Server.RecordsAfter(f.seen)
	b.counts = f.page.counts()
	b.Messages = []summary{}
	if len(records) == 0 {
		return b, cleared
	}
	f.seen = records[len(records)-1].Number
	for i := len(records) - 1; i >= 0; i-- {
		if f.filter == (filter{}) && len(b.Messages) == limit {
			b.Skipped = i + 1
			break
		}
		s := summarize(&records[i])
		switch {
		case !f.filter.accepts(&s):
		case len(b.Messages) < limit:
			b.Messages = append(b.Messages, s)
		default:
			b.Skipped++
		}
	}
	slices.Reverse(b.Messages)
	return b, cleared
}

// id returns the ID of an event: the start of the program, the number of the last message and
// the number of the last message that was cleared.
func (f *follower) id() string { return fmt.Sprintf("%s:%d:%d", f.page.started, f.seen, f.clears) }

// resume makes the follower continue after the event with the ID. It returns false if the ID is
// none of this start of the program.
func (f *follower) resume(id string) bool {
	parts := strings.Split(id, ":")
	if len(parts) != 3 || parts[0] != f.page.started {
		return false
	}
	seen, err1 := strconv.Atoi(parts[1])
	clears, err2 := strconv.Atoi(parts[2])
	if err1 != nil || err2 != nil || seen < 0 {
		return false
	}
	f.seen, f.clears = seen, clears
	return true
}

// events sends what happens as server-sent events: start (once), messages, cleared, state. A
// client that connects again with the ID of the last event gets what it has missed.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	f := &follower{page: p, filter: newFilter(r.URL.Query()), clears: p.floor()}
	limit := maxFirst
	resumed := f.resume(r.Header.Get("Last-Event-ID"))
	w.Header().Set("Content-Type", "text/event-stream")
	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	out.send("start", "", map[string]any{"start": p.started, "resumed": resumed})
	timer := time.NewTicker(tick)
	defer timer.Stop()
	var state []byte
	due := 0 // the tick of the next look for messages
	for n := 0; out.err == nil; n++ {
		if n >= due {
			b, cleared := f.next(limit)
			if cleared {
				out.send("cleared", "", struct{}{})
			}
			if len(b.Messages) > 0 || b.Skipped > 0 || cleared || n == 0 {
				out.send("messages", f.id(), b)
			}
			if limit = maxBatch; b.Skipped > 0 {
				due = n + floodTicks
			}
		}
		if now := p.state(); !bytes.Equal(now, state) {
			state = now
			out.send("state", "", json.RawMessage(now))
		}
		out.flush(n)
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
}

// An eventWriter writes events. After an error it does nothing.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	pending bytes.Buffer
	last    int // the tick of the last flush
	err     error
}

func (e *eventWriter) send(name, id string, v any) {
	b, err := json.Marshal(v) // without line breaks, which would end the data
	if err != nil {
		e.err = err
		return
	}
	if id != "" {
		fmt.Fprintf(&e.pending, "id: %s\n", id)
	}
	fmt.Fprintf(&e.pending, "event: %s\ndata: %s\n\n", name, b)
}

// flush writes the events. If there are none, it writes a comment now and then, so that both
// sides notice a connection that is broken.
func (e *eventWriter) flush(tick int) {
	if e.pending.Len() == 0 {
		if tick-e.last < aliveTicks {
			return
		}
		e.pending.WriteString(":\n\n")
	}
	e.last = tick
	if _, err := e.w.Write(e.pending.Bytes()); err != nil {
		e.err = err
	} else if err := e.control.Flush(); err != nil {
		e.err = err
	}
	e.pending.Reset()
}

func (p *Page) floor() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cleared
}

// clear hides all messages that the server has recorded. Numbers go on, so that nobody who
// follows the messages takes a new one for an old one.
func (p *Page) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleared = p.recorded()
}

// recorded returns how many messages the server has recorded.
func (p *Page) recorded() int {
	n := 0
	for _, o := range []apnstest.Outcome{apnstest.Accepted, apnstest.Rejected, apnstest.Discarded} {
		n += p.Server.Count(o)
	}
	return n
}

func (p *Page) counts() counts {
	total := p.recorded()
	floor := p.floor()
	return counts{Total: max(0, total-floor), Dropped: max(0, total-p.Server.MaxRecords-floor)}
}
