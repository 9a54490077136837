package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/apns"
	"example.com/apns/apnstest"
)

var (
	chaosMessages = flag.Int("chaos", 2000, "messages of the chaos test; the full run has 50000")
	chaosPause    = flag.Duration("chaos-pause", time.Second/2, "time between the ends of two workers in the chaos test")
)

// Workers are killed while messages are lost, refused and put off. Each message ends
// acknowledged, terminated or parked. What arrived twice was in doubt, or its worker was killed
// before its acknowledgement.
func TestChaos(t *testing.T) {
	for _, policy := range []inDoubtPolicy{inDoubtRedeliver, inDoubtAck, inDoubtPark} {
		t.Run(string(policy), func(t *testing.T) {
			n := *chaosMessages
			slow := func(s *apnstest.Server) { s.Latency, s.StreamLimit = 100*time.Millisecond, 20 } // so that a kill finds something in flight
			c := newCluster(t, chaosHandler(), slow, n, "-ack-wait", "5s", "-room", "1000", "-in-doubt", string(policy))
			start := time.Now()
			for range 3 {
				c.startWorker(t)
			}
			kills := c.torment(t, time.Now().Add(10*time.Minute))
			took := time.Since(start)
			for _, w := range c.workers {
				c.end(t, w, syscall.SIGTERM)
			}
			b := c.balance(t, n, policy)
			t.Logf("%d messages in %v, %d workers killed, %d drained: %v", n, took.Round(time.Millisecond), kills, c.drained, b)
			c.stopQueue(t)
			jetStream, pushServer, workers := c.shares()
			t.Logf("CPU: JetStream %.0f %%, push server %.0f %%, workers %.0f %%", jetStream, pushServer, workers)
		})
	}
}

// chaosHandler answers as demoAnswer, and every so often goes wrong. What goes wrong depends on
// the count of messages alone.
func chaosHandler() func(*apns.Message) error {
	var count atomic.Int64
	after := func(s error) error {
		reason, _ := s.(apns.Reason)
		return &apns.PushError{HTTPStatus: map[apns.Reason]int{apns.ReasonTooManyRequests: 429, apns.ReasonServiceUnavailable: 503}[reason], Reason: reason, RetryAfter: time.Second}
	}
	return func(m *apns.Message) error {
		n := tokenNumber(m)
		if err := demoAnswer(n); err != nil {
			return err
		}
		switch k := count.Add(1); {
		case k%1500 == 700:
			return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndGoAway, Reason: apns.ReasonShutdown}
		case k%1500 == 1200:
			return apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}
		case k%2000 == 1000:
			return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndFIN} // cut, with all answers that are on their way
		case k%500 == 100:
			return apnstest.Fault{End: apnstest.EndRefusedStream}
		case k%400 == 50:
			return after(apns.ReasonTooManyRequests)
		case k%700 == 77:
			return after(apns.ReasonServiceUnavailable)
		}
		return nil
	}
}

// A cluster is push servers in this process, and NATS and workers in others. Each worker has a
// push server of its own, whose records say what arrived from that worker.
type cluster struct {
	startServer func() *apnstest.Server
	nats        *exec.Cmd
	url         string
	js          jetstream.JetStream
	args        []string // of a worker
	workers     []*process
	ended       []*process // workers, too
	drained     int

	workerCPU, natsCPU time.Duration
	ownCPU             time.Duration // at the beginning

	mu  sync.Mutex // protects log
	log bytes.Buffer
}

type process struct {
	*exec.Cmd
	ended  chan error
	server *apnstest.Server
	killed time.Time // zero if it drains
}

// Write takes what the workers log.
func (c *cluster) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Write(b)
}

// newCluster starts NATS and publishes messages.
func newCluster(t testing.TB, handler func(*apns.Message) error, change func(*apnstest.Server), n int, args ...string) *cluster {
	t.Helper()
	c := &cluster{args: args}
	c.startServer = func() *apnstest.Server {
		s := apnstest.NewUnstartedServer(handler)
		change(s)
		s.MaxRecords = 4*n + 1000
		s.Start()
		t.Cleanup(s.Close)
		return s
	}
	addr := freeAddr(t)
	c.url = "nats://" + addr
	c.nats = c.command("server", "-listen", addr, "-store", t.TempDir())
	if err := c.nats.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.nats.Process.Kill() })
	c.publish(t, n)
	c.ownCPU = ownCPU()
	return c
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// publish publishes the demo's messages. The message n has the sequence number n+1.
func (c *cluster) publish(t testing.TB, n int) {
	t.Helper()
	waitForPort(t, c.url[len("nats://"):])
	nc, js, err := connect(c.url, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	c.js = js
	if _, err := openStreams(t.Context(), js, queueSettings{maxAge: time.Hour, replicas: 1}); err != nil {
		t.Fatal(err)
	}
	p := &publisher{js: js}
	for i := range n {
		if err := p.publish(demoMessage(i), strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.wait(); err != nil {
		t.Fatal(err)
	}
}

func waitForPort(t testing.TB, addr string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// command returns this program, in a process of its own.
func (c *cluster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "WORKER_MAIN=1")
	cmd.Stderr, cmd.Stdout = c, io.Discard
	return cmd
}

// startWorker starts a push server and a worker.
func (c *cluster) startWorker(t testing.TB) {
	t.Helper()
	server, dir := c.startServer(), t.TempDir()
	certs := server.Certificates()
	for name, b := range map[string][]byte{"key.p8": certs.AuthKey, "ca.pem": certs.CA} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"-nats", c.url, "-addr", server.HTTP2Addr, "-bundle-id", apnstest.BundleID,
		"-p8", filepath.Join(dir, "key.p8"), "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, "-ca", filepath.Join(dir, "ca.pem")}, c.args...)
	p := &process{Cmd: c.command(args...), ended: make(chan error, 1), server: server}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	c.workers = append(c.workers, p)
}

// end ends a worker. One that drains must succeed.
func (c *cluster) end(t testing.TB, p *process, sig os.Signal) {
	t.Helper()
	if sig == syscall.SIGKILL {
		p.killed = time.Now()
	}
	c.ended = append(c.ended, p)
	p.Process.Signal(sig)
	select {
	case err := <-p.ended:
		if sig == syscall.SIGTERM && err != nil {
			t.Errorf("a worker drained with %v, want nil", err)
		}
	case <-time.After(40 * time.Second):
		p.Process.Kill()
		t.Error("a worker does not drain")
		<-p.ended
	}
	c.workerCPU += p.ProcessState.UserTime() + p.ProcessState.SystemTime()
}

// torment ends one worker after the other and starts another in its place, until the queue is
// empty. Three are killed for each that drains. It returns how many were killed.
func (c *cluster) torment(t *testing.T, deadline time.Time) (kills int) {
	t.Helper()
	next := time.Now().Add(*chaosPause)
	for i := 0; ; time.Sleep(10 * time.Millisecond) {
		s, err := c.js.Stream(t.Context(), pushStream)
		switch {
		case err == nil && s.CachedInfo().State.Msgs == 0:
			return kills
		case time.Now().After(deadline):
			t.Fatalf("the queue is not empty: %v", err)
		case time.Now().After(next):
			victim := c.workers[0]
			c.workers = c.workers[1:]
			if i++; i%4 == 2 { // soon, since the first workers take most messages
				c.end(t, victim, syscall.SIGTERM)
				c.drained++
			} else {
				kills++
				c.end(t, victim, syscall.SIGKILL)
			}
			c.startWorker(t)
			next = time.Now().Add(*chaosPause)
		}
	}
}

func (c *cluster) stopQueue(t testing.TB) {
	c.nats.Process.Signal(syscall.SIGTERM)
	c.nats.Wait()
	c.natsCPU = c.nats.ProcessState.UserTime() + c.nats.ProcessState.SystemTime()
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// shares says who used the CPU, in percent. JetStream's has the publishing in it.
func (c *cluster) shares() (jetStream, pushServer, workers float64) {
	push := ownCPU() - c.ownCPU
	all := float64(push+c.natsCPU+c.workerCPU) / 100
	return float64(c.natsCPU) / all, float64(push) / all, float64(c.workerCPU) / all
}

// A balance says what became of all messages.
type balance struct {
	accepted, dead, rejected, parked int
	neverArrived                     int // in doubt, and acknowledged all the same
	afterKill, inDoubt, unexplained  int // that arrived more than once
	doubts                           int // times that a worker said that a message is in doubt
}

func (b balance) String() string {
	return fmt.Sprintf("%d accepted, %d dead, %d rejected, %d parked, %d in doubt that never arrived; twice: %d after a kill, %d in doubt, %d else (%d times in doubt)",
		b.accepted, b.dead, b.rejected, b.parked, b.neverArrived, b.afterKill, b.inDoubt, b.unexplained, b.doubts)
}

var doubtLine = regexp.MustCompile(`in doubt sequence=(\d+)`)

// An arrival is a message that a push server accepted from a worker.
type arrival struct {
	time time.Time
	from *process
}

// arrivals returns the arrivals of each message in their order. All workers have ended.
func (c *cluster) arrivals() map[int][]arrival {
	all := make(map[int][]arrival)
	for _, p := range c.ended {
		for _, r := range p.server.Records() {
			if r.Outcome == apnstest.Accepted {
				n := tokenNumber(r.Message)
				all[n] = append(all[n], arrival{r.Time, p})
			}
		}
	}
	for _, a := range all {
		slices.SortFunc(a, func(x, y arrival) int { return x.time.Compare(y.time) })
	}
	return all
}

// isLostByKill reports whether the worker was killed so soon after the message arrived that
// JetStream has no acknowledgement: the answer takes 100 ms, and on a busy machine more.
func (a arrival) isLostByKill() bool {
	return !a.from.killed.IsZero() && a.time.After(a.from.killed.Add(-3*time.Second))
}

// balance compares what the queue was told with what the push servers have recorded.
func (c *cluster) balance(t *testing.T, n int, policy inDoubtPolicy) (b balance) {
	t.Helper()
	events := c.events(t)
	arrivals := c.arrivals()
	doubted := make(map[int]bool)
	c.mu.Lock()
	for _, m := range doubtLine.FindAllSubmatch(c.log.Bytes(), -1) {
		sequence, _ := strconv.Atoi(string(m[1]))
		doubted[sequence-1] = true
		b.doubts++
	}
	c.mu.Unlock()
	for i := range n {
		arrived, parked := len(arrivals[i]), events[subjectParked][i+1]
		excused := doubted[i] && policy == inDoubtAck // it was acknowledged all the same
		switch {
		case isUndecodable(i), isBad(i):
			b.rejected++
			if !events[subjectRejected][i+1] && !parked && !excused || arrived > 0 {
				t.Errorf("message %d is not on %s, or arrived", i, subjectRejected)
			}
		case isDead(i):
			b.dead++
			if !events[subjectDead][i+1] && !parked && !excused || arrived > 0 {
				t.Errorf("message %d is not on %s, or arrived", i, subjectDead)
			}
		case parked:
			b.parked++
		case arrived > 0:
			b.accepted++
		case excused:
			b.neverArrived++
		default:
			t.Errorf("message %d is lost", i)
		}
		for j := 1; j < arrived; j++ {
			switch {
			case arrivals[i][j-1].isLostByKill():
				b.afterKill++
			case doubted[i] && policy == inDoubtRedeliver:
				b.inDoubt++
			default:
				b.unexplained++
				t.Errorf("message %d arrived at %v, and once more at %v: the first worker was not killed, nor was the message in doubt", i, arrivals[i][j-1].time, arrivals[i][j].time)
			}
		}
	}
	return b
}

// events returns the sequence numbers of the messages that have an event, by its subject.
func (c *cluster) events(t *testing.T) map[string]map[int]bool {
	t.Helper()
	s, err := c.js.Stream(t.Context(), eventStream)
	if err != nil {
		t.Fatal(err)
	}
	events := make(map[string]map[int]bool)
	for _, subject := range []string{subjectDead, subjectRejected, subjectParked} {
		events[subject] = make(map[int]bool)
	}
	for i := uint64(1); i <= s.CachedInfo().State.LastSeq; i++ {
		m, err := s.GetMsg(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		sequence, _ := strconv.Atoi(m.Header.Get(headerSequence))
		events[m.Subject][sequence] = true
	}
	return events
}

// Messages a second with workers in processes of their own, and who uses the CPU.
func BenchmarkProcesses(b *testing.B) {
	for workers := 1; workers <= 3; workers++ {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			const n = 50_000
			for range b.N {
				b.StopTimer()
				c := newCluster(b, nil, func(*apnstest.Server) {}, n)
				b.StartTimer()
				for range workers {
					c.startWorker(b)
				}
				wait(b, c.js)
				b.StopTimer()
				for _, w := range c.workers {
					c.end(b, w, syscall.SIGTERM)
				}
				c.stopQueue(b)
				jetStream, pushServer, workers := c.shares()
				b.ReportMetric(jetStream, "%CPU-JetStream")
				b.ReportMetric(pushServer, "%CPU-push-server")
				b.ReportMetric(workers, "%CPU-workers")
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// wait waits until the queue is empty.
func wait(b *testing.B, js jetstream.JetStream) {
	for {
		s, err := js.Stream(context.Background(), pushStream)
		if err != nil {
			b.Fatal(err)
		}
		if s.CachedInfo().State.Msgs == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
