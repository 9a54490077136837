package apns_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The figures are right at each moment, and their sum is what was handed over.
func TestClientHTTP2Stats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string]error{
			device(1).Token: apns.ReasonBadDeviceToken,
			device(2).Token: apns.ReasonBadDeviceToken,
			device(3).Token: apns.ReasonUnregistered,
			device(4).Token: &apns.PushError{HTTPStatus: 418},
			device(5).Token: apnstest.Fault{End: apnstest.EndSilence},
			device(6).Token: apnstest.Fault{End: apnstest.EndRST},
			device(7).Token: answerAfter(5 * time.Second),
		}
		server := inMemory(t, func(m *apns.Message) error { return answers[m.Token] })
		c := http2Client(t, server.Config())
		wantFigures(t, c, apns.Stats{})
		var wg sync.WaitGroup
		wg.Go(func() { allAtOnce(t.Context(), c, 10) })
		want := apns.Stats{Accepted: 3, Rejected: map[string]uint64{"BadDeviceToken": 2, "Unregistered": 1, "HTTP status 418": 1}, InDoubt: 1, InFlight: 2, Connected: 1}
		time.Sleep(time.Second)
		wantFigures(t, c, want)
		time.Sleep(5 * time.Second)
		want.Accepted, want.InFlight = 4, 1
		wantFigures(t, c, want)
		wg.Wait()
		want.InDoubt, want.InFlight = 2, 0
		wantFigures(t, c, want)
		c.Stats().Rejected["BadDeviceToken"] = 0 // a copy
		wantFigures(t, c, want)
	})
}
