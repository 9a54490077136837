package bulk

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Progress is a line on a terminal that shows how many tokens of a list are done. Other
// lines are printed above it. If there is no terminal, it shows nothing.
type Progress struct {
	tokens  *Tokens
	started time.Time
	done    atomic.Int64 // tokens with an outcome
	bad     atomic.Int64 // tokens of done that were not accepted

	quit chan struct{}
	w    io.Writer // for other lines

	mu    sync.Mutex // protects following
	line  io.Writer  // nil: the line is not shown
	width int        // of the text that is shown
}

// redraw is the time between two updates of the line.
const redraw = 250 * time.Millisecond

// NewProgress shows the line on f until Stop, if f is a terminal.
func NewProgress(f *os.File, tokens *Tokens) *Progress {
	p := &Progress{tokens: tokens, started: time.Now(), w: f}
	if IsTerminal(f) {
		p.line = f
		p.quit = make(chan struct{})
		p.draw(p.started)
		go p.run()
	}
	return p
}

// Add counts a token with an outcome.
func (p *Progress) Add(accepted bool) {
	p.done.Add(1)
	if !accepted {
		p.bad.Add(1)
	}
}

// Println prints a line in place of the progress. The next update shows the progress below
// it.
func (p *Progress) Println(a ...any) { fmt.Fprintln(p, a...) }

// Write writes b, which must end with a newline, as Println prints a line.
func (p *Progress) Write(b []byte) (n int, err error) {
	p.Aside(func() { n, err = p.w.Write(b) })
	return n, err
}

// Aside clears the progress and calls f, which may print lines to the same terminal by other
// means.
func (p *Progress) Aside(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
	f()
}

// Stop clears the line for good.
func (p *Progress) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.line != nil {
		p.clearLocked()
		close(p.quit)
		p.line = nil
	}
}

func (p *Progress) run() {
	t := time.NewTicker(redraw)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			p.draw(now)
		case <-p.quit:
			return
		}
	}
}

func (p *Progress) draw(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.line == nil {
		return
	}
	text := p.text(now)
	fmt.Fprintf(p.line, "\r%-*s", p.width, text) // overwrites the previous text
	p.width = max(p.width, len(text))
}

// clearLocked clears the line.
func (p *Progress) clearLocked() {
	if p.line != nil && p.width > 0 {
		// The terminal may have added ^C to the line.
		fmt.Fprintf(p.line, "\r%s\r", strings.Repeat(" ", p.width+len("^C")))
		p.width = 0
	}
}

// text returns, for example, "1200 of about 5000, 3 not accepted, 400/s, 9s left".
func (p *Progress) text(now time.Time) string {
	invalid := p.tokens.invalid.Load()
	unsent := invalid + p.tokens.skipped.Load()
	done, bad := p.done.Load(), p.bad.Load()+invalid
	// Lines that are not sent take no time, so they do not count for the rate.
	rate := float64(done) / max(now.Sub(p.started).Seconds(), 0.001)
	total, exact := p.tokens.total()

	text := fmt.Sprint(done + unsent)
	switch {
	case exact:
		text += fmt.Sprintf(" of %d", total)
	case total > 0:
		text += fmt.Sprintf(" of about %d", total)
	}
	if bad > 0 {
		text += fmt.Sprintf(", %d not accepted", bad)
	}
	text += fmt.Sprintf(", %.0f/s", rate)
	if left := total - done - unsent; left > 0 && rate > 0 {
		seconds := time.Duration(float64(left)/rate+0.5) * time.Second
		text += fmt.Sprintf(", %v left", max(seconds, time.Second))
	}
	return text
}
