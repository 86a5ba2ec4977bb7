package engine

import "strings"

// tag is the part of a key that says on which server it is: what stands between the first brace
// and the one that closes it, or the whole key if that is nothing.
func tag(key string) string {
	if _, behind, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(behind, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// slot is the Cluster slot of a key: CRC-16/XMODEM of its tag modulo 16384.
func slot(key string) uint16 {
	key = tag(key)
	const (
		polynomial = 0x1021
		slots      = 16384
	)
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ polynomial
			} else {
				crc <<= 1
			}
		}
	}
	return crc % slots
}
