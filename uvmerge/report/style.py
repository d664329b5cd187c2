"""The style sheet of the page."""

from .colours import DIVERGING
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
.top{display:grid;grid-template-columns:minmax(0,76ch) minmax(0,1fr);gap:0 44px;align-items:start}
@media (max-width:980px){.top{grid-template-columns:1fr}}
.headline{max-width:78ch;padding:0;margin:14px 0;list-style:none}
.headline li{margin:7px 0;padding-left:14px;border-left:3px solid #c9d6de;overflow-wrap:anywhere}
.headline li:first-child{border-color:#00527f;font-weight:600}
.headline.unrelated li:first-child{border-color:#b34700}
.note,figcaption .note{color:#666;font-size:12px;font-weight:400}
figcaption .note{display:block;line-height:1.35;min-height:2.7em}
figure{margin:0;break-inside:avoid}
figcaption{font-weight:600;font-size:13px;margin:0 0 4px}
svg{display:block;max-width:100%;height:auto}
svg text{font-variant-numeric:tabular-nums}
svg a{cursor:pointer}svg a:hover use{stroke:#000}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(380px,1fr));gap:26px 18px}
.row{display:flex;flex-wrap:wrap;gap:14px 18px;padding:8px 0 18px;scroll-margin-top:60px}
.row>figure{flex:0 0 auto}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:3px 9px 3px 0;text-align:right;vertical-align:top;border-bottom:1px solid #e6e6e6}
th{font-weight:600;color:#444}th:first-child,td:first-child{text-align:left}
td{white-space:nowrap}td.name{white-space:normal;overflow-wrap:anywhere;min-width:150px}
.wide th,.wide td{font-size:12px;padding-right:10px;line-height:1.3}
.numbers{font-size:12px;align-self:flex-start}.numbers th{font-weight:400}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;
 font-size:12.5px;margin:22px 0}
.facts dt{color:#666}h1 small{font-weight:400;color:#555;font-size:.75em}
.facts dd{margin:0;overflow-wrap:anywhere}
details{border-bottom:1px solid #e2e2e2}
summary{cursor:pointer;padding:5px 0;font-size:13px;overflow-wrap:anywhere}
summary span{color:#555}
.block{display:block;image-rendering:pixelated;border:1px solid #999;margin-top:14px}
.ramp{display:block;width:144px;height:8px;margin-top:6px;
 background:linear-gradient(90deg,"""
    + ",".join(DIVERGING)
    + """)}
.ends{display:flex;justify-content:space-between;width:144px;font-size:10px;color:#333}
.ends i{font-style:normal}.block~.note{display:block;width:150px;line-height:1.3;font-size:11px}
.meaning dt{font-weight:600;margin-top:8px}.meaning dd{margin:0;max-width:92ch}
@page{margin:14mm}
@media print{
 body{max-width:none;padding:0;font-size:10.5pt}
 h2,h3,dt,figcaption,summary{break-after:avoid}
 .maps{grid-template-columns:1fr 1fr}.heat,.chart{max-height:23cm}
 tr,li,.row>*{break-inside:avoid}a{color:inherit;text-decoration:none}
 .wide th,.wide td{font-size:7pt;padding-right:5px;white-space:normal}td.name{min-width:36mm}
 p.note{break-after:avoid}.top{display:block}.every{break-before:page;border:0}
 .scroll,summary{break-inside:avoid}
 .scroll{overflow:visible}details:not([open]){display:none}
}
"""
)
