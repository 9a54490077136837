package apns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func newAuthKey(t testing.TB) *AuthKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	p8 := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	k, err := ParseAuthKey(p8, "ABC123DEFG", "DEF123GHIJ")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// decodeJWT verifies a JWT as APNs would, and returns the time of its issue and
// the two halves of its signature.
func decodeJWT(t testing.TB, k *AuthKey, jwt string) (issued time.Time, r, s []byte) {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("JWT %q: got %d parts, want 3", jwt, len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			t.Fatalf("JWT %q: part %d: %v", jwt, i, err)
		}
	}
	if got, want := string(decoded[0]), `{"alg":"ES256","kid":"ABC123DEFG"}`; got != want {
		t.Errorf("header: got %s, want %s", got, want)
	}
	var claims map[string]any
	d := json.NewDecoder(bytes.NewReader(decoded[1]))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		t.Fatalf("claims %s: %v", decoded[1], err)
	}
	if got := slices.Sorted(maps.Keys(claims)); !slices.Equal(got, []string{"iat", "iss"}) || claims["iss"] != "DEF123GHIJ" {
		t.Errorf("claims: got %s, want iss DEF123GHIJ, and iat", decoded[1])
	}
	iat, ok := claims["iat"].(json.Number)
	seconds, err := iat.Int64()
	if !ok || err != nil {
		t.Errorf("claims: got %s, want an integer for iat", decoded[1])
	}
	signature := decoded[2]
	if len(signature) != 64 {
		t.Fatalf("signature: got %d bytes, want 64", len(signature))
	}
	r, s = signature[:32], signature[32:]
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ecdsa.Verify(&k.private.PublicKey, digest[:], new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)) {
		t.Errorf("JWT %q: the signature is not valid", jwt)
	}
	return time.Unix(seconds, 0), r, s
}

// One r in 256 begins with a zero byte, and so does one s: it signs until both
// have come up.
func TestAuthKeySign(t *testing.T) {
	k := newAuthKey(t)
	var shortR, shortS bool
	n := 0
	for at := time.Unix(1790000000, 999999999); !shortR || !shortS; at = at.Add(time.Second) {
		jwt, err := k.sign(at)
		if err != nil {
			t.Fatal(err)
		}
		issued, r, s := decodeJWT(t, k, jwt)
		if issued.Unix() != at.Unix() {
			t.Errorf("iat: got %d, want %d", issued.Unix(), at.Unix())
		}
		shortR = shortR || r[0] == 0
		shortS = shortS || s[0] == 0
		if n++; n > 20000 {
			t.Fatalf("no short r or no short s in %d signatures", n)
		}
	}
	t.Logf("%d signatures", n)
}

func TestAuthKeyZero(t *testing.T) {
	s := tokenSource{key: new(AuthKey)}
	if bearer, _, err := s.next(); err == nil {
		t.Errorf("next with an AuthKey that holds no key: got %q, want an error", bearer)
	}
}

// What shows an AuthKey shows neither the key nor the token that it shares, also
// where it is part of something else.
func TestAuthKeyLeaksNothing(t *testing.T) {
	k := newAuthKey(t)
	source := &tokenSource{key: k}
	bearer, _, err := source.next()
	if err != nil {
		t.Fatal(err)
	}
	d, err := k.private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	decimal := new(big.Int).SetBytes(d).String()
	secrets := []string{
		hex.EncodeToString(d[:4]),
		decimal[:8], decimal[len(decimal)-8:],
		fmt.Sprint(d[:3])[1:],
		base64.StdEncoding.EncodeToString(d[:6]),
		bearer[len(bearer)-20:],
		hex.EncodeToString([]byte(bearer[len(bearer)-20:])),
	}
	check := func(how, got string) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(strings.ToLower(got), strings.ToLower(secret)) {
				t.Errorf("%s: got %q, which has %q of the key or the token in it", how, got, secret)
			}
		}
	}

	type exported struct{ Key *AuthKey }
	type unexported struct{ key *AuthKey }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{
			k, exported{k}, &exported{k}, unexported{k}, &unexported{k}, []*AuthKey{k},
			struct{ tokens *tokenSource }{source}, // as in a Conn
		} {
			check(fmt.Sprintf("%s of %T", verb, v), fmt.Sprintf(verb, v))
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		check(verb+" of a copy", fmt.Sprintf(verb, reflect.ValueOf(k).Elem())) // vet forbids *k
	}
	for _, verb := range []string{"%v", "%+v", "%s"} {
		if got, want := fmt.Sprintf(verb, k), "auth key ABC123DEFG of team DEF123GHIJ"; got != want {
			t.Errorf("%s: got %q, want %q", verb, got, want)
		}
	}

	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("key", "key", k, "config", exported{k}, slog.Group("group", "key", k))
	}
	check("slog", log.String())
	if want := "auth key ABC123DEFG of team DEF123GHIJ"; !strings.Contains(log.String(), want) {
		t.Errorf("slog: got %s, want %q in it", log.String(), want)
	}
	b, err := json.Marshal(exported{k})
	if err != nil {
		t.Fatal(err)
	}
	check("JSON", string(b))
}

func TestAuthKeyToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newAuthKey(t)
		time.Sleep(300 * time.Millisecond) // not a whole second
		var ahead time.Duration
		k.now = func() time.Time { return time.Now().Add(ahead) }
		token := func(under time.Duration) providerToken {
			t.Helper()
			p, err := k.token(under)
			if err != nil {
				t.Fatal(err)
			}
			jwt, ok := strings.CutPrefix(p.bearer, "bearer ")
			if !ok {
				t.Errorf("got %q, want bearer and a space in front", p.bearer)
			}
			if issued, _, _ := decodeJWT(t, k, jwt); !issued.Equal(p.issued) {
				t.Errorf("issued: got %v, want the iat %v", p.issued, issued)
			}
			return p
		}
		want := func(what string, got, want bool) {
			t.Helper()
			if got != want {
				t.Errorf("%s: a new token: got %t, want %t", what, got, want)
			}
		}
		first := token(10 * time.Minute)
		if age := k.clock().Sub(first.issued); age != 300*time.Millisecond {
			t.Errorf("age of a new token: got %v, want 300ms", age)
		}
		time.Sleep(10*time.Minute - 301*time.Millisecond)
		want("under 10 minutes old", token(10*time.Minute) != first, false)
		time.Sleep(time.Millisecond)
		want("10 minutes old", token(10*time.Minute+1) != first, false)
		second := token(10 * time.Minute)
		want("10 minutes old", second != first, true)
		ahead = -time.Minute
		want("issued in a minute", token(time.Hour) != second, false)
		ahead -= time.Millisecond
		third := token(time.Hour)
		want("issued in over a minute", third != second, true)
		want("which is shared", token(time.Hour) != third, false)
	})
}

// A monotonic reading stands still while the machine is suspended.
func TestAuthKeyWallClock(t *testing.T) {
	k := newAuthKey(t)
	for _, now := range []func() time.Time{nil, time.Now} {
		k.now = now
		if at := k.clock(); at != at.Round(0) {
			t.Errorf("clock: got %v, want no monotonic reading", at)
		}
	}
	p, err := k.token(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if p.issued != p.issued.Round(0) {
		t.Errorf("issued: got %v, want no monotonic reading", p.issued)
	}
}

func TestAuthKeyConcurrent(t *testing.T) {
	k := newAuthKey(t)
	sources := make([]*tokenSource, 8)
	for i := range sources {
		sources[i] = &tokenSource{key: k}
	}
	// everywhere calls next many times at once on each source, and returns the
	// bearer, of which there must be one alone.
	everywhere := func(before func(*tokenSource)) string {
		t.Helper()
		var wg sync.WaitGroup
		var mu sync.Mutex
		bearers := make(map[string]int)
		for i := range 8 * len(sources) {
			s := sources[i%len(sources)]
			wg.Go(func() {
				before(s)
				bearer, _, err := s.next()
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				bearers[bearer]++
				_ = k.String()
			})
		}
		wg.Wait()
		if len(bearers) != 1 {
			t.Fatalf("got %d distinct tokens, want 1: %v", len(bearers), bearers)
		}
		for bearer := range bearers {
			return bearer
		}
		return ""
	}
	first := everywhere(func(*tokenSource) {})
	second := everywhere(func(s *tokenSource) { s.expired(first) })
	if second == first {
		t.Error("got the token that has expired, want another")
	}
	if third := everywhere(func(s *tokenSource) { s.expired(first) }); third != second {
		t.Error("an answer to a token that was replaced: got another token, want the same")
	}
}

func TestTokenNextAllocatesNothing(t *testing.T) {
	s := tokenSource{key: newAuthKey(t)}
	if n := testing.AllocsPerRun(1000, func() {
		if _, _, err := s.next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// The rules, as the documentation of AuthKey states them.
const (
	startAge = 35 * time.Minute
	minUse   = 20 * time.Minute
	maxAge   = 55 * time.Minute
	slack    = time.Minute
)

// A jump sets the clock at some time of the day.
type jump struct{ at, by time.Duration }

// A life is when a connection opens and closes.
type life struct{ from, to time.Duration }

const day = 24 * time.Hour

// lives are four connections that live all day, and one for three hours that is
// opened every 37 minutes.
func lives() []life {
	all := []life{{0, day}, {0, day}, {11*time.Minute + 7*time.Second, day}, {50 * time.Minute, day}}
	for from := 5 * time.Second; from < day; from += 37 * time.Minute {
		all = append(all, life{from, min(from+3*time.Hour, day)})
	}
	return all
}

// A tokenDay is a simulated day of connections which share one key and send a
// push every minute. It checks the rules at each push.
type tokenDay struct {
	jumps []jump
	skew  time.Duration // of the clock, before the first jump
	// refuse, if not nil, is the server, which refuses a token as expired.
	refuse func(issued, trueTime time.Time) bool

	mu      sync.Mutex // protects following
	tokens  map[string]bool
	changes int // on any connection
	pushes  int
	refused int
}

func (d *tokenDay) run(t *testing.T, lives []life) {
	t.Helper()
	d.tokens = make(map[string]bool)
	synctest.Test(t, func(t *testing.T) {
		k := newAuthKey(t)
		start := time.Now()
		k.now = func() time.Time {
			now := time.Now()
			set := d.skew
			for _, j := range d.jumps {
				if now.Sub(start) >= j.at {
					set += j.by
				}
			}
			return now.Add(set)
		}
		var wg sync.WaitGroup
		for _, l := range lives {
			wg.Go(func() {
				time.Sleep(l.from)
				d.connection(t, k, start, l.to)
			})
		}
		wg.Wait()
	})
	t.Logf("%d tokens and %d changes on %d connections, %d pushes, %d of them refused", len(d.tokens), d.changes, len(lives), d.pushes, d.refused)
}

func (d *tokenDay) connection(t *testing.T, k *AuthKey, start time.Time, until time.Duration) {
	opened := time.Now()
	src := tokenSource{key: k}
	var current string
	var issued, since time.Time // since by the true time
	changes, forced := 0, 0
	wasRefused := false
	var lastForced time.Time
	for ; time.Since(start) < until; time.Sleep(time.Minute) {
		bearer, refreshed, err := src.next()
		if err != nil {
			t.Error(err)
			return
		}
		now := time.Now()
		at := now.Sub(start)
		if bearer != current {
			old := issued
			issued, _, _ = decodeJWT(t, k, strings.TrimPrefix(bearer, "bearer "))
			age := k.clock().Sub(issued)
			if age < -slack || age >= startAge {
				t.Errorf("at %v: began with a token that is %v old, want 0 to 35m", at, age)
			}
			if refreshed != (current != "") {
				t.Errorf("at %v: refreshed is %t, on a connection whose last token was %q", at, refreshed, current)
			}
			if current != "" {
				// How long the old token was used: as the clock may have seen it.
				used := now.Sub(since)
				for _, j := range d.jumps {
					if j.by > 0 && !start.Add(j.at).Before(since) && at >= j.at {
						used += j.by
					}
				}
				oldAge := k.clock().Sub(old)
				switch {
				case oldAge >= maxAge || oldAge <= -maxAge:
				case used >= minUse:
				case wasRefused && (lastForced.IsZero() || lastForced.Before(since)):
				default:
					t.Errorf("at %v: a token that is %v old was changed after %v", at, oldAge, used)
				}
				if wasRefused {
					forced++
					lastForced = now
				}
				changes++
			}
			current, since, wasRefused = bearer, now, false
		} else if refreshed {
			t.Errorf("at %v: refreshed is true, and the token is the same", at)
		}
		if age := k.clock().Sub(issued); age >= maxAge {
			t.Errorf("at %v: used a token that is %v old, want at most 55m", at, age)
		}
		refused := d.refuse != nil && d.refuse(issued, now)
		if refused {
			src.expired(bearer)
			src.expired(bearer)
			wasRefused = true
		}
		d.mu.Lock()
		d.pushes++
		d.tokens[bearer] = true
		if refused {
			d.refused++
		}
		d.mu.Unlock()
	}
	// Between two changes there are 20 minutes, or the clock was set; and one was
	// forced.
	lived := time.Since(opened)
	jumps := 0
	for _, j := range d.jumps {
		if !start.Add(j.at).Before(opened) && j.at <= until && (j.by > 15*time.Second || j.by < -15*time.Second) {
			jumps++
		}
	}
	if limit := int(lived/minUse) + jumps + min(forced, 1); changes > limit {
		t.Errorf("the connection of %v changed its token %d times, want at most %d", lived, changes, limit)
	}
	d.mu.Lock()
	d.changes += changes
	d.mu.Unlock()
}

// The shared token is replaced when somebody wants one and it is at least 35
// minutes old, so that a day has 42 at most, whatever the number of connections.
const tokensADay = int(day/startAge) + 1

func TestTokenDay(t *testing.T) {
	for _, test := range []struct {
		name  string
		lives []life
		want  int
	}{
		{"one connection", []life{{0, day}}, 27}, // one for 55 minutes
		{"four that stay", lives()[:4], 0},
		{"many that come and go", lives(), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var d tokenDay
			d.run(t, test.lives)
			if n := len(d.tokens); n > tokensADay || test.want != 0 && n != test.want {
				t.Errorf("got %d distinct tokens, want at most %d, and %d where that is not 0", n, tokensADay, test.want)
			}
		})
	}
}

// A clock that is set costs no more than a token each time.
func TestTokenClockJumps(t *testing.T) {
	const h, m, s = time.Hour, time.Minute, time.Second
	noon := 12*h + 30*s
	for _, test := range []struct {
		name  string
		jumps []jump
	}{
		{"forward by 3 hours", []jump{{noon, 3 * h}}},
		{"forward by 30 minutes", []jump{{noon, 30 * m}}},
		{"forward by 10 minutes", []jump{{noon, 10 * m}}},
		{"forward by 10 years", []jump{{noon, 10 * 365 * day}}},
		{"back by 3 hours", []jump{{noon, -3 * h}}},
		{"back by 56 minutes", []jump{{noon, -56 * m}}},
		{"back by 30 minutes", []jump{{noon, -30 * m}}},
		{"back by 10 minutes", []jump{{noon, -10 * m}}},
		{"back by 10 years", []jump{{noon, -10 * 365 * day}}},
		{"forward and back", []jump{{noon, 3 * h}, {noon + 10*m, -3 * h}}},
		{"back and forward", []jump{{noon, -3 * h}, {noon + 10*m, 3 * h}}},
		{"back and back again", []jump{{noon, -40 * m}, {noon + 10*m, -40 * m}, {noon + 20*m, -40 * m}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := tokenDay{jumps: test.jumps}
			d.run(t, lives())
			if n, most := len(d.tokens), tokensADay+len(test.jumps); n > most {
				t.Errorf("got %d distinct tokens, want at most %d", n, most)
			}
		})
	}
	t.Run("by seconds, all day", func(t *testing.T) {
		var d tokenDay
		for at := 30 * s; at < day; at += 10 * m {
			d.jumps = append(d.jumps, jump{at, 5 * s}, jump{at + 5*m, -5 * s})
		}
		d.run(t, lives())
		if n := len(d.tokens); n > tokensADay {
			t.Errorf("got %d distinct tokens, want at most %d", n, tokensADay)
		}
	})
	for seed := range uint64(10) {
		t.Run(fmt.Sprintf("random %d", seed), func(t *testing.T) {
			random := mathrand.New(mathrand.NewPCG(seed, 0))
			var d tokenDay
			for range 20 {
				by := time.Duration(random.Int64N(int64(2*h))) - h
				if random.IntN(4) == 0 {
					by *= 24
				}
				d.jumps = append(d.jumps, jump{time.Duration(random.IntN(24*60))*m + 30*s, by})
			}
			d.run(t, lives())
			if n, most := len(d.tokens), tokensADay+len(d.jumps); n > most {
				t.Errorf("got %d distinct tokens, want at most %d", n, most)
			}
		})
	}
}

// When a connection changes the token that it began with at 0, by the true time,
// if the clock is set 10 minutes and a half later.
func TestTokenClockJumpTimes(t *testing.T) {
	const jumpAt = 10*time.Minute + 30*time.Second
	for _, test := range []struct{ by, want time.Duration }{
		{0, 55 * time.Minute},
		// The clock catches up with the token within 20 minutes: it stays.
		{-9 * time.Minute, 64 * time.Minute},
		{-13 * time.Minute, 68 * time.Minute},
		{-32 * time.Minute, 87 * time.Minute},
		// It does not: 20 minutes from the push that finds the clock set back.
		{-33 * time.Minute, 31 * time.Minute},
		{-65 * time.Minute, 31 * time.Minute},
		// More than 55 minutes off: at once.
		{-67 * time.Minute, 11 * time.Minute},
		{-30 * day, 11 * time.Minute},
		{44 * time.Minute, 11 * time.Minute},
		{43 * time.Minute, 12 * time.Minute},
		{30 * day, 11 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			k := newAuthKey(t)
			start := time.Now()
			k.now = func() time.Time {
				if time.Since(start) >= jumpAt {
					return time.Now().Add(test.by)
				}
				return time.Now()
			}
			s := tokenSource{key: k}
			for {
				_, refreshed, err := s.next()
				if err != nil {
					t.Fatal(err)
				}
				if refreshed || time.Since(start) > 2*time.Hour {
					break
				}
				time.Sleep(time.Minute)
			}
			if got := time.Since(start); got != test.want {
				t.Errorf("set by %v: the token was changed after %v, want %v", test.by, got, test.want)
			}
		})
	}
}

// hourOff is what Apple refuses: a token that is an hour off, either way.
func hourOff(issued, trueTime time.Time) bool {
	return trueTime.Sub(issued).Abs() > time.Hour
}

// A clock that is off, and a server that refuses what it signs, or some of it.
// While it does, each connection changes its token every 20 minutes, and once
// more at its start. The connections share the tokens: a day has 72, and at most
// one more for each connection.
func TestTokenClockOff(t *testing.T) {
	const h, m, s = time.Hour, time.Minute, time.Second
	one, many := []life{{0, day}}, lives()
	most := int(day/minUse) + len(many)
	for _, test := range []struct {
		name        string
		lives       []life
		skew        time.Duration
		jumps       []jump
		tokens      int     // at most
		least, most float64 // how much of the pushes is refused
	}{
		{"right", many, 0, nil, tokensADay, 0, 0},
		{"5 minutes behind", many, -5 * m, nil, tokensADay, 0, 0},
		{"30 minutes ahead", many, 30 * m, nil, tokensADay, 0, 0},
		{"30 minutes behind", many, -30 * m, nil, most, 0.01, 0.05},
		{"45 minutes behind, one connection", one, -45 * m, nil, 73, 0.1, 0.25}, // 15 good minutes in 20
		{"45 minutes behind", many, -45 * m, nil, most, 0.1, 0.6},
		{"3 hours behind, one connection", one, -3 * h, nil, 73, 1, 1},
		{"3 hours behind", many, -3 * h, nil, most, 1, 1},
		{"3 hours ahead", many, 3 * h, nil, most, 1, 1},
		// The pushes of the first 10 minutes and a half, on three connections.
		{"3 hours behind, corrected", many, -3 * h, []jump{{10*m + 30*s, 3 * h}}, tokensADay + 2, 0.001, 33. / 12357},
		{"3 hours ahead, corrected", many, 3 * h, []jump{{10*m + 30*s, -3 * h}}, tokensADay + 2, 0.001, 33. / 12357},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := tokenDay{skew: test.skew, jumps: test.jumps, refuse: hourOff}
			d.run(t, test.lives)
			if n := len(d.tokens); n > test.tokens {
				t.Errorf("got %d distinct tokens, want at most %d", n, test.tokens)
			}
			if got := float64(d.refused) / float64(d.pushes); got < test.least || got > test.most {
				t.Errorf("got %.4f of the pushes refused, want %.4f to %.4f", got, test.least, test.most)
			}
		})
	}
}

func TestTokenExpired(t *testing.T) {
	// Each test has two connections; next says whether it wants a refresh.
	run := func(name string, f func(t *testing.T, a, b *tokenSource, next func(s *tokenSource, refreshed bool) string)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newAuthKey(t)
				f(t, &tokenSource{key: k}, &tokenSource{key: k}, func(s *tokenSource, want bool) string {
					t.Helper()
					bearer, refreshed, err := s.next()
					if err != nil {
						t.Fatal(err)
					}
					if refreshed != want {
						t.Errorf("after %v: refreshed: got %t, want %t", time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), refreshed, want)
					}
					return bearer
				})
			})
		})
	}
	same := func(t *testing.T, what string, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got another token, want the same", what)
		}
	}
	other := func(t *testing.T, what string, got, old string) {
		t.Helper()
		if got == old {
			t.Errorf("%s: got the same token, want another", what)
		}
	}

	run("once, within the 20 minutes", func(t *testing.T, a, b *tokenSource, next func(*tokenSource, bool) string) {
		first := next(a, false)
		time.Sleep(time.Minute)
		for range 10 { // pushes in flight
			a.expired(first)
		}
		second := next(a, true)
		other(t, "after the refusals", second, first)
		for range 10 { // and those whose answers come later
			a.expired(first)
			same(t, "after a late refusal", next(a, false), second)
		}
		same(t, "a new connection", next(b, false), second)
	})

	run("again and again", func(t *testing.T, a, _ *tokenSource, next func(*tokenSource, bool) string) {
		first := next(a, false)
		a.expired(first)
		second := next(a, true)
		for range 20 {
			a.expired(second)
			same(t, "within 20 minutes of the refresh", next(a, false), second)
			time.Sleep(time.Minute)
		}
		third := next(a, true)
		other(t, "20 minutes after the refresh", third, second)
		a.expired(third)
		same(t, "just after that", next(a, false), third)
	})

	run("two connections, one new token", func(t *testing.T, a, b *tokenSource, next func(*tokenSource, bool) string) {
		first := next(a, false)
		same(t, "the other connection", next(b, false), first)
		a.expired(first)
		second := next(a, true)
		same(t, "the other connection, not refused", next(b, false), first)
		b.expired(first)
		same(t, "the other connection, refused", next(b, true), second)
	})

	run("before the connection has a token", func(t *testing.T, a, b *tokenSource, next func(*tokenSource, bool) string) {
		a.expired("bearer of another")
		a.expired("")
		first := next(a, false)
		same(t, "after that", next(a, false), first)
		same(t, "the other connection", next(b, false), first)
	})

	run("the 20 minutes count from the refresh", func(t *testing.T, a, _ *tokenSource, next func(*tokenSource, bool) string) {
		first := next(a, false)
		time.Sleep(54 * time.Minute)
		a.expired(first)
		second := next(a, true)
		time.Sleep(54*time.Minute + 59*time.Second)
		same(t, "before it is 55 minutes old", next(a, false), second)
		time.Sleep(time.Second)
		other(t, "when it is 55 minutes old", next(a, true), second)
	})

	// An ordinary change does not use up the refresh.
	run("after an ordinary change", func(t *testing.T, a, _ *tokenSource, next func(*tokenSource, bool) string) {
		first := next(a, false)
		time.Sleep(55 * time.Minute)
		second := next(a, true)
		other(t, "when it is 55 minutes old", second, first)
		a.expired(first)
		same(t, "after a late refusal", next(a, false), second)
		a.expired(second)
		third := next(a, true)
		other(t, "after a refusal", third, second)
		time.Sleep(55 * time.Minute)
		fourth := next(a, true)
		a.expired(fourth)
		other(t, "after a refusal, a refresh and an ordinary change", next(a, true), fourth)
	})
}
