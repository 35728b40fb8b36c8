module github.com/artstore/artstore-pki/e2e/browser

go 1.26.0

replace github.com/artstore/artstore-pki => ../../

require (
	github.com/artstore/artstore-pki v0.0.0-00010101000000-000000000000
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
)

require (
	github.com/CycloneDX/cyclonedx-go v0.12.0 // indirect
	github.com/clipperhouse/uax29/v2 v2.7.0 // indirect
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/mattn/go-runewidth v0.0.30 // indirect
	golang.org/x/crypto v0.58.0 // indirect
)
