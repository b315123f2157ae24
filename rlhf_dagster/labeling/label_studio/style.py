"""The look of a labelling page.

The page scrolls as a whole, so that long responses stay side by side, and what is asked stays in sight at the bottom.
Label Studio turns ``>`` in a style into an entity, so no selector here has one; ``!important`` is used where Label
Studio's own rules use it.
"""

_TEXT = ".rl-prompt, .rl-card, .rl-text"
"""Where texts of models are shown. Label Studio resets the styles of Markdown's elements; those below restore them."""
STYLE = f"""
.rl-prompt {{ border-left: 4px solid #6a7bc4; padding: 6px 14px; margin-bottom: 12px; max-height: 40vh; overflow: auto;
  background: rgba(127,127,127,.06); }}
.rl-cards {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 12px;
  margin-bottom: 12px; }}
.rl-square {{ grid-template-columns: repeat(auto-fit, minmax(max(min(340px, 100%), 40%), 1fr)); }}
.rl-card {{ min-width: 0; border: 1px solid rgba(127,127,127,.45); border-radius: 6px; padding: 8px 14px;
  overflow-x: auto; }}
.rl-card:has(.rl-absent) {{ display: none; }}
.rl-turn {{ margin: 0 0 10px; }}
.rl-role {{ font-weight: 600; font-size: 12px; text-transform: uppercase; opacity: .65; }}
.rl-empty {{ color: #888; font-style: italic; }}
.rl-absences {{ display: none; }}
:is({_TEXT}) {{ overflow-wrap: anywhere; }}
:is({_TEXT}) p {{ margin: 0 0 8px; }}
:is({_TEXT}) pre {{ white-space: pre-wrap; background: rgba(127,127,127,.14); padding: 8px; border-radius: 4px;
  margin: 6px 0 10px; }}
:is({_TEXT}) code {{ font-family: ui-monospace, Menlo, Consolas, "Liberation Mono", monospace !important;
  font-size: 13px; }}
:is({_TEXT}) :is(p, li, td, th) code {{ background: rgba(127,127,127,.14); padding: 1px 4px; border-radius: 3px; }}
:is({_TEXT}) ul {{ list-style: disc; padding-left: 22px; margin: 0 0 8px; }}
:is({_TEXT}) ol {{ list-style: decimal; padding-left: 22px; margin: 0 0 8px; }}
:is({_TEXT}) li {{ margin: 2px 0; }}
:is({_TEXT}) li p {{ margin: 0; }}
:is({_TEXT}) :is(h1, h2, h3, h4, h5, h6) {{ font-size: 16px; line-height: 1.3; margin: 8px 0 4px; }}
:is({_TEXT}) blockquote {{ border-left: 3px solid #999; padding-left: 10px; opacity: .85; margin: 0 0 8px; }}
:is({_TEXT}) table {{ border-collapse: collapse; margin: 0 0 10px; overflow-wrap: normal; }}
:is({_TEXT}) :is(td, th) {{ border: 1px solid #999; padding: 2px 8px; }}
.rl-answer {{ position: sticky; bottom: 0; z-index: 5; padding: 8px 0 0; background: var(--color-neutral-background);
  border-top: 1px solid rgba(127,127,127,.45); box-shadow: 0 16px 0 var(--color-neutral-background); }}
:is(.rl-answer, .rl-card) h4[style] {{ font-size: 14px; line-height: 1.3; margin: 2px 0 6px !important; }}
.rl-answer .lsf-choices {{ margin: 0 0 2px; }}
.rl-extras {{ display: flex; flex-wrap: wrap; align-items: center; column-gap: 24px; }}
.rl-extras .lsf-text-area {{ flex: 1 1 300px; }}
.rl-extras .ant-form-item {{ margin-bottom: 8px; }}
.rl-axes {{ display: flex; flex-wrap: wrap; column-gap: 48px; }}
.rl-ratings {{ display: grid; grid-template-columns: max-content 1fr; column-gap: 14px; align-items: center;
  border-bottom: 1px solid rgba(127,127,127,.45); margin-bottom: 10px; padding-bottom: 6px; }}
.rl-ratings h4[style] {{ margin: 0 !important; font-weight: 500; }}
.rl-ratings .ant-rate {{ margin: 0; padding: 0; line-height: 1.6; }}
.rl-ratings .ant-rate-star-zero svg {{ color: #8a8a8a; }}
.htx-ranker-column {{ min-height: 76px; min-width: 70px; padding: 4px 6px; }}
.htx-ranker-column span, .htx-ranker-column h4 {{ font-size: 13px !important; line-height: 1.3 !important; }}
.htx-ranker-item {{ cursor: grab; padding: 1px 8px; margin-bottom: 4px; }}
.htx-ranker-item p:last-child {{ display: none; }}
.lsf-sidepanels {{ padding: 0 !important; }}
.lsf-sidepanels__wrapper {{ display: none; }}
@media (max-width: 760px), (max-height: 560px) {{
  .rl-answer {{ position: static; }} .rl-prompt {{ max-height: none; }} }}
"""
