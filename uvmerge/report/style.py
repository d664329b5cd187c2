"""The style sheet of the page."""

from .colours import SEQUENTIAL
from .svg import CHART_STYLE

STYLE = (
    CHART_STYLE
    + """
*{box-sizing:border-box}
html{-webkit-print-color-adjust:exact;print-color-adjust:exact;color-scheme:light}
body{margin:0 auto;max-width:1240px;padding:28px 32px 60px;background:#fff;color:#1a1a1a;
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
h1{font-size:25px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:18px;margin:40px 0 10px;padding-top:10px;border-top:1px solid #ccc}
h3{font-size:15px;margin:22px 0 6px}
p{margin:6px 0}a{color:#00527f}
.kicker{color:#666;margin:0 0 6px;font-size:13px}
.first{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:14px 36px;align-items:start;
 grid-template-areas:"lead lead" "tiles map" "now map";grid-template-rows:auto auto 1fr}
.lead{grid-area:lead;font-size:19px;line-height:1.4;font-weight:600;margin:10px 0 4px;
 max-width:72ch;padding-left:14px;border-left:4px solid #00527f;overflow-wrap:anywhere}
.lead.unrelated{border-color:#b34700}
.tiles{grid-area:tiles;display:grid;gap:12px;
 grid-template-columns:repeat(2,minmax(0,1fr))}
.tile{border:1px solid #d5dbdf;border-radius:4px;padding:8px 12px;display:flex;
 flex-direction:column;gap:3px;break-inside:avoid}
.tile .name{font-size:12.5px;color:#333}.tile b{font-size:25px;line-height:1.15}
.tile .bar{max-width:100%}
.map{grid-area:map;max-width:100%}.map figcaption{max-width:430px}
.now{grid-area:now;min-width:0}.now h2{margin:4px 0 2px;padding:0;border:0}
.now .why{color:#555;font-size:12.5px;margin:8px 0 2px}
pre{margin:0;padding:7px 10px;background:#f2f4f6;border-radius:4px;font-size:12.5px;
 white-space:pre-wrap;overflow-wrap:anywhere}
@media (max-width:980px){.first{grid-template-columns:minmax(0,1fr);
 grid-template-areas:"lead" "tiles" "map" "now";grid-template-rows:auto}}
@media (min-width:680px) and (max-width:980px){
 .first{grid-template-columns:minmax(0,1fr) auto;grid-template-areas:"lead lead" "tiles tiles" "now map"}
 .tiles{grid-template-columns:repeat(4,minmax(0,1fr))}.map figcaption{max-width:380px}}
@media (max-width:480px){body{padding:18px 14px 40px}.lead{font-size:17px}
 .tiles{gap:8px}.tile{padding:7px 9px}.tile b{font-size:21px}}
.notes{margin:14px 0;padding-left:18px;font-size:13px;color:#444}.notes li{overflow-wrap:anywhere}
.prose{margin-top:6px}.prose>summary,.layer>summary{font-size:14px;padding:8px 0}
.layer>details{margin-left:14px}.layer>.scroll{margin-left:14px}
.headline{max-width:78ch;padding:0;margin:14px 0;list-style:none}
.headline li{margin:7px 0;padding-left:14px;border-left:3px solid #c9d6de;overflow-wrap:anywhere}
.headline li:first-child{border-color:#00527f;font-weight:600}
.headline.unrelated li:first-child{border-color:#b34700}
.note,figcaption .note{color:#666;font-size:12px;font-weight:400}
figcaption .note{display:block;line-height:1.35}
figure{margin:0;break-inside:avoid}
figcaption{font-weight:600;font-size:13px;margin:0 0 4px}
svg{display:block;max-width:100%;height:auto}
svg text{font-variant-numeric:tabular-nums}
svg a{cursor:pointer}svg a:hover use{stroke:#000}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr));gap:26px 18px}
.small{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,152px),1fr));gap:22px 14px}
.small figcaption{font-size:12px;min-height:3em}
.row{display:flex;flex-wrap:wrap;gap:14px 18px;padding:8px 0 18px;scroll-margin-top:60px}
.row>figure{flex:0 1 auto;min-width:0;max-width:100%}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:3px 9px 3px 0;text-align:right;vertical-align:top;border-bottom:1px solid #e6e6e6}
th{font-weight:600;color:#444}th:first-child,td:first-child{text-align:left}
td{white-space:nowrap}td.name{white-space:normal;overflow-wrap:anywhere;min-width:150px}
.wide th,.wide td{font-size:12px;padding-right:10px;line-height:1.3}
.numbers{font-size:12px;align-self:flex-start}.numbers th{font-weight:400}
.facts{display:grid;grid-template-columns:fit-content(30%) minmax(0,1fr);gap:4px 16px;
 font-size:12.5px;margin:22px 0}
.facts dt{color:#666}h1 small{font-weight:400;color:#555;font-size:.75em}
.facts dd{margin:0;overflow-wrap:anywhere}
details{border-bottom:1px solid #e2e2e2}
summary{cursor:pointer;padding:5px 0;font-size:13px;overflow-wrap:anywhere}
summary span{color:#555}
.block{display:block;image-rendering:pixelated;border:1px solid #999;margin-top:14px}
.ramp{display:block;width:144px;height:8px;margin-top:6px;
 background:linear-gradient(90deg,"""
    + ",".join(SEQUENTIAL)
    + """)}
.ends{display:flex;justify-content:space-between;width:144px;font-size:10px;color:#333}
.ends i{font-style:normal}.block~.note{display:block;width:150px;line-height:1.3;font-size:11px}
.meaning dt{font-weight:600;margin-top:8px}.meaning dd{margin:0;max-width:92ch}
@page{margin:14mm}
@media print{
 body{max-width:none;padding:0;font-size:10.5pt}
 h2,h3,dt,figcaption,summary{break-after:avoid}
 .first{grid-template-columns:minmax(0,1fr) auto;gap:8px 18px;
  grid-template-areas:"lead lead" "tiles tiles" "now map"}
 .tiles{grid-template-columns:repeat(4,1fr);gap:6px}.tile b{font-size:14pt}
 .tile .name,.tile .note{font-size:7.5pt}.map svg{max-width:9cm;max-height:13cm}
 pre{font-size:7.5pt}.lead{font-size:13pt}
 .maps{grid-template-columns:1fr 1fr}.small{grid-template-columns:1fr 1fr 1fr}
 .heat,.chart{max-height:23cm}
 tr,li,.row>*,.now{break-inside:avoid}a{color:inherit;text-decoration:none}
 .wide th,.wide td{font-size:7pt;padding-right:5px;white-space:normal}td.name{min-width:36mm}
 p.note{break-after:avoid}.every{break-before:page;border:0}
 .scroll,summary{break-inside:avoid}
 .scroll{overflow:visible}details:not([open]):not(.prose){display:none}
 .prose::details-content{content-visibility:visible;display:block}
}
"""
)
