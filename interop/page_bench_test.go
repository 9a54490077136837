package interop_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// BenchmarkPage pushes to examples/local: without the page, with the page and no browser, and
// with the page open in Chromium. Compare the pushes of one run:
//
//	go test ./interop -run '^$' -bench Page -benchtime 50000x -count 3
//
// It reports the processor time of the server for a push, its resident memory in MB at the
// end, and in the browser the median and the 99th percentile of the time between two frames
// in ms.
func BenchmarkPage(b *testing.B) {
	program := buildProgram(b, "local")
	b.Run("off", func(b *testing.B) { pushToLocal(b, startLocal(b, program, "-page=false")) })
	b.Run("on", func(b *testing.B) { pushToLocal(b, startLocal(b, program)) })
	b.Run("open", func(b *testing.B) {
		node, settings := browserSettings(b)
		s := startLocal(b, program)
		settings["page"] = s.page
		argument, err := json.Marshal(settings)
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.CommandContext(b.Context(), node, "page-frames.js", string(argument))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer cmd.Wait()
		defer in.Close()
		lines := bufio.NewScanner(out)
		lines.Scan() // ready
		fmt.Fprintln(in, "measure")
		lines.Scan() // measuring
		pushToLocal(b, s)
		fmt.Fprintln(in, "end")
		var frames struct {
			Median, P99   float64
			Counts, Shown string
		}
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &frames) != nil {
			b.Fatalf("the browser said %q", lines.Text())
		}
		b.ReportMetric(frames.Median, "ms/frame")
		b.ReportMetric(frames.P99, "ms/frame-p99")
		b.Log(lines.Text())
	})
}

// pushToLocal pushes b.N messages to many tokens with a Client.
func pushToLocal(b *testing.B, s *localServer) {
	file := func(name string) string { return filepath.Join(s.dir, "apns-local", name) }
	key, err := apns.LoadAuthKey(file("AuthKey_"+apnstest.KeyID+".p8"), apnstest.KeyID, apnstest.TeamID)
	if err != nil {
		b.Fatal(err)
	}
	ca, err := os.ReadFile(file("ca.pem"))
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &apns.Client{Addr: s.http2, Config: &apns.Config{TLS: &tls.Config{RootCAs: roots}, Key: key, BundleID: apnstest.BundleID}}
	defer client.Close()
	if err := client.Connect(b.Context()); err != nil {
		b.Fatal(err)
	}
	cpu := cpuSeconds(s.pid)
	payload := apns.AlertPayload("Your table for two at 19:30 is confirmed.")
	b.ResetTimer()
	accepted := 0
	for result := range client.PushAll(b.Context(), func(yield func(*apns.Message) bool) {
		for i := range b.N {
			if !yield(&apns.Message{Token: fmt.Sprintf("%064x", i), Payload: payload, PushType: apns.PushTypeAlert}) {
				return
			}
		}
	}) {
		if result.Err != nil {
			b.Fatal(result.Err)
		}
		accepted++
	}
	b.StopTimer()
	b.ReportMetric(float64(accepted)/b.Elapsed().Seconds(), "pushes/s")
	b.ReportMetric((cpuSeconds(s.pid)-cpu)*1e6/float64(b.N), "server-µs/push")
	b.ReportMetric(residentMB(s.pid), "server-MB")
}

// cpuSeconds returns the processor time of a process, or 0 where /proc does not say. On a busy
// machine it says more than the time on the clock.
func cpuSeconds(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the third on
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // the kernel counts in hundredths
}

// residentMB returns the resident memory of a process in MB, or 0 where /proc does not say.
func residentMB(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kB, _ := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
	return kB / 1024
}
