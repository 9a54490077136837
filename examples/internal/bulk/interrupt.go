package bulk

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Grace is how long a program waits after Ctrl-C for the answers to messages in flight.
const Grace = 2 * time.Second

// Interruptible returns two contexts that Ctrl-C and SIGTERM cancel. The context reading is
// for reading tokens: it is cancelled at once. The context sending is for sending: it is
// cancelled after Grace. A second Ctrl-C kills the program.
//
// The function interrupt is called at the first Ctrl-C, before a context is cancelled. The
// function stop cancels reading. The function done cancels both and must be called in the
// end.
func Interruptible(interrupt func()) (reading, sending context.Context, stop, done func()) {
	reading, stop = context.WithCancel(context.Background())
	sending, cancel := context.WithCancel(context.Background())
	interrupted, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	forget := context.AfterFunc(interrupted, func() {
		restore()
		interrupt()
		stop()
		time.AfterFunc(Grace, cancel)
	})
	return reading, sending, stop, func() {
		forget()
		restore()
		stop()
		cancel()
	}
}
