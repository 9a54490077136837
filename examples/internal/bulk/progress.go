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

// Progress is a line on a terminal that shows how far a list of tokens is done,
// and makes way for other lines. Where there is no terminal, it shows nothing.
type Progress struct {
	tokens  *Tokens
	started time.Time
	done    atomic.Int64 // tokens that were sent, whatever became of them
	bad     atomic.Int64 // those of them that were not accepted

	quit chan struct{}
	w    io.Writer // for other lines

	mu    sync.Mutex // protects following
	line  io.Writer  // nil: it is not shown
	width int        // of what is shown
}

// redraw is how often the line is drawn.
const redraw = 250 * time.Millisecond

// NewProgress shows the line on f, if that is a terminal, until Stop.
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

// Add counts a token that was sent.
func (p *Progress) Add(accepted bool) {
	p.done.Add(1)
	if !accepted {
		p.bad.Add(1)
	}
}

// Println prints a line in the place of the progress, which is soon back below.
func (p *Progress) Println(a ...any) { fmt.Fprintln(p, a...) }

// Write is Println for what ends with a newline itself.
func (p *Progress) Write(b []byte) (n int, err error) {
	p.Aside(func() { n, err = p.w.Write(b) })
	return n, err
}

// Aside calls a function that prints lines elsewhere, which may be the same
// terminal.
func (p *Progress) Aside(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	f()
}

// Stop clears the line for good.
func (p *Progress) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.line != nil {
		p.clear()
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
	fmt.Fprintf(p.line, "\r%-*s", p.width, text) // over the one before
	p.width = max(p.width, len(text))
}

// clear takes the line away; the caller holds p.mu.
func (p *Progress) clear() {
	if p.line != nil && p.width > 0 {
		// The terminal may have shown ^C behind it.
		fmt.Fprintf(p.line, "\r%s\r", strings.Repeat(" ", p.width+len("^C")))
		p.width = 0
	}
}

// text returns, for example, "1200 of about 5000, 3 not accepted, 400/s, 9s left".
func (p *Progress) text(now time.Time) string {
	invalid := p.tokens.invalid.Load()
	done, bad := p.done.Load(), p.bad.Load()+invalid
	// What was invalid took no time.
	rate := float64(done) / max(now.Sub(p.started).Seconds(), 0.001)
	total, exact := p.tokens.total()

	text := fmt.Sprint(done + invalid)
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
	if left := total - done - invalid; left > 0 && rate > 0 {
		seconds := time.Duration(float64(left)/rate+0.5) * time.Second
		text += fmt.Sprintf(", %v left", max(seconds, time.Second))
	}
	return text
}
