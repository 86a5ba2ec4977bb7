// Package origin tells requests of this machine from those that only seem so.
package origin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Meant reports whether a request that came from this machine's own address was also meant for it by somebody here. It was not if a
// proxy hands it on, if the page of another site sends it, or if it names a host that is neither an address, nor localhost, nor
// bound, which may be empty: so would a browser that was told that a name of some other site is here.
func Meant(r *http.Request, bound string) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") || bound != "" && strings.EqualFold(host, bound) {
		return true
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}
