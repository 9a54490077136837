package bulk

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Grace is how long Ctrl-C leaves what is on its way to have its answer.
const Grace = 2 * time.Second

// Interruptible returns the contexts of a run that Ctrl-C, or SIGTERM, ends: that
// of the tokens ends at once, so that no more are read, and that of the sending
// after Grace. Another Ctrl-C kills the program. The function said is called at the
// first one, before anything ends. The function stop ends the tokens as well; done,
// everything.
func Interruptible(said func()) (tokens, sending context.Context, stop, done func()) {
	tokens, stop = context.WithCancel(context.Background())
	sending, cancel := context.WithCancel(context.Background())
	interrupted, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	forget := context.AfterFunc(interrupted, func() {
		restore()
		said()
		stop()
		time.AfterFunc(Grace, cancel)
	})
	return tokens, sending, stop, func() {
		forget()
		restore()
		stop()
		cancel()
	}
}
