// Package page is the web page and the control API of examples/local: it shows what a Server
// of apnstest receives, and sets what the server answers. It uses the public API of apnstest
// alone.
package page

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A Page is the handler of the page and of the control API. Its Rules must be what the server's
// Handler asks.
//
// A Page answers requests that are made to an IP address, to localhost or to Host, and those
// of no other site. So a site that a browser shows at the same time can neither read the page
// nor change anything, not even after DNS rebinding. Whoever can connect can do both: listen
// on loopback.
type Page struct {
	// Server is the server that the page shows. It must be started, and have KeepRaw,
	// MaxRecords and StreamLimit set. A reset restores the feedback records that it has when
	// Handler is called.
	Server *apnstest.Server

	// Rules are the answers that were set.
	Rules *Rules

	// Files are the files that the commands use.
	Files Files

	// Host is another name that browsers may use for the page, without a port. Empty means
	// none.
	Host string

	// FeedbackCleared, unless nil, is called when the page has emptied the list of the
	// feedback service or has restored it. It must not call the page.
	FeedbackCleared func()

	started  string          // names this start of the program
	atStart  []apns.Feedback // the feedback list at the start
	snapshot snapshot

	mu      sync.Mutex // protects following
	cleared int        // the number of the last record that was cleared
	limit   int        // the stream limit; 0 means that of the Server
	added   additions
}

// Files are the names of the files with the server's certificates and keys. The page shows the
// names, and never what is in the files.
type Files struct {
	CA, Cert, Key string // PEM
	AuthKey       string // .p8
	Authorization string // has a line with an authorization field, for curl
}

//go:embed static
var static embed.FS

// Handler returns the handler of the page and of the control API.
func (p *Page) Handler() http.Handler {
	p.started = time.Now().UTC().Format("20060102T150405.000000000")
	p.atStart = p.Server.Feedback()
	for _, d := range p.Server.Devices() {
		p.added.add(d.Token, d.Topics)
	}
	mux := http.NewServeMux()
	for path, file := range map[string]struct{ name, contentType string }{
		"/{$}":       {"index.html", "text/html; charset=utf-8"},
		"/page.js":   {"page.js", "text/javascript; charset=utf-8"},
		"/list.js":   {"list.js", "text/javascript; charset=utf-8"},
		"/detail.js": {"detail.js", "text/javascript; charset=utf-8"},
		"/style.css": {"style.css", "text/css; charset=utf-8"},
		"/icon.svg":  {"icon.svg", "image/svg+xml"},
	} {
		b, err := static.ReadFile("static/" + file.name)
		if err != nil {
			panic(err) // the file is embedded
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", file.contentType)
			w.Write(b)
		})
	}
	p.routes(mux)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, errors.New("the path and method are none of the API, expected one of docs/local.md"))
	})
	return p.guard(mux)
}

// guard rejects what another site may have sent, and limits what the page may do in a browser.
func (p *Page) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w := steadyWriter{out}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !p.isOwnHost(r.Host):
			writeError(w, http.StatusForbidden, errors.New("the Host is a name, expected an IP address or localhost"))
		case !isOwnOrigin(r):
			writeError(w, http.StatusForbidden, errors.New("the request is of another site, expected one of this page or of a program"))
		case (r.Method == http.MethodPost || r.Method == http.MethodPut) && !isJSON(r):
			// A form of another site cannot send this type.
			writeError(w, http.StatusUnsupportedMediaType, fmt.Errorf("Content-Type is %.100q, expected application/json", r.Header.Get("Content-Type")))
		default:
			if err := readBody(out, r); err != nil {
				writeError(w, http.StatusBadRequest, err)
				return
			}
			next.ServeHTTP(w, r)
		}
	})
}

// isOwnHost reports whether a Host is an address, localhost or p.Host. DNS rebinding needs
// another name: the name of a site whose owner makes it resolve to this machine.
func (p *Page) isOwnHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return strings.EqualFold(host, "localhost") || p.Host != "" && strings.EqualFold(host, p.Host)
}

// isOwnOrigin reports whether a request may read and change what it asks for: a browser sends
// it for the page itself, or for a link to it, or no browser sends it. It is stricter than
// http.CrossOriginProtection, which lets other sites read.
func isOwnOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Method == http.MethodGet && r.URL.Path == "/"
}

// Reachable returns an address at which programs on this machine reach what listens on addr: in
// place of all addresses it has localhost.
func Reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}

func isJSON(r *http.Request) bool {
	contentType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(contentType), "application/json")
}

// writeJSON responds with a value in JSON.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}
