// @ts-check
/**
 * The panels' strings, in the language of the page. ComfyUI translates the texts that a node
 * declares (`locales/`). It offers extensions no translation function, so the strings of the panels
 * are translated here.
 */
import { app } from "../../scripts/app.js";

/** @type {Record<string, string>} */
const CHINESE = {
  // Training panel
  "Training of {title}": "{title} 的训练",
  "Loss, pace and memory appear here.": "损失、速度和内存占用将显示在这里。",
  "Sample images appear here, if any are drawn.": "如果生成样图，将显示在这里。",
  "Sample images over time": "各步的样图",
  "Sample images of step {step}": "第 {step} 步的样图",
  "Stop and keep": "停止并保留",
  "End now and keep what was learned so far": "现在结束，保留目前学到的内容",
  "Save now": "立即保存",
  "Save the current LoRA and continue": "保存当前的 LoRA，然后继续",
  "Of other inputs than the present ones:": "以下属于其他输入，而非当前输入：",
  "{title} did not run": "{title} 未能运行",
  "log": "对数",
  "Logarithmic scale: equal distances are equal ratios. Press for a linear one.":
    "对数坐标：相等的距离表示相等的比例。按下后改用线性坐标。",
  "step {step}": "第 {step} 步",
  "step {step} of {steps}": "第 {step} / {steps} 步",
  "pass {pass}": "第 {pass} 遍",
  "{passes} pass": "{passes} 遍",
  "{passes} passes": "{passes} 遍",
  "preparing {percent} %": "准备中 {percent} %",
  "{percent} % done": "已完成 {percent} %",
  "starting": "正在开始",
  "{speed} steps/s": "{speed} 步/秒",
  "{speed} s/step": "{speed} 秒/步",
  "{time} left": "剩余 {time}",
  "{seconds} s": "{seconds} 秒",
  "{minutes} min {seconds} s": "{minutes} 分 {seconds} 秒",
  "{hours} h {minutes} min": "{hours} 小时 {minutes} 分",
  "{used} of {total} GiB in use": "已用 {used} / {total} GiB",
  "Finished.": "已完成。",
  "Stopped, and kept what was learned.": "已停止，并保留已学到的内容。",
  "Cancelled.": "已取消。",
  "Ended with an error.": "因错误而结束。",
  "Ended early, at the last good state:": "提前结束，已回到最后的正常状态：",
  "Press Run with the same inputs to continue.": "用相同的输入再次运行即可继续。",
  "Stopping after this step …": "这一步之后停止……",
  "Stopping after this pass …": "这一遍之后停止……",
  "Saving after this step …": "这一步之后保存……",
  "The run has already ended.": "运行已经结束。",
  "The server refused the request ({status}).": "服务器拒绝了请求（{status}）。",
  "Saved as {files}.": "已保存为 {files}。",
  "{file} and {other}": "{file} 和 {other}",
  "The server does not answer.": "服务器没有回应。",
  "The server does not answer; waiting for it.": "服务器没有回应，正在等待。",
  "The server was restarted. Press Run to continue from the last checkpoint, if there is one.":
    "服务器已重新启动。再次运行，将从最后一个检查点（如果有）继续。",
  "The server sent data that cannot be shown.": "服务器发来了无法显示的数据。",
  // Search panel
  "Search of {title}": "{title} 的搜索",
  "Pace and memory appear here.": "速度和内存占用将显示在这里。",
  "The best images appear here.": "目前最好的图片将显示在这里。",
  "after image {step}": "第 {step} 张之后",
  "Best images after image {step}": "第 {step} 张之后最好的图片",
  "End now with the best so far": "现在结束，采用目前最好的",
  "Stopping after this image …": "这张图片之后停止……",
  "Stopped, with the best so far.": "已停止，采用目前最好的。",
  "image {step} of {steps}": "第 {step} / {steps} 张",
  "{speed} images/s": "{speed} 张/秒",
  "{speed} s/image": "{speed} 秒/张",
  // Sheet of merges
  "Images of {title}": "{title} 的图片",
  "The images appear here after a run. Click one to take it.": "运行之后，图片将显示在这里。点击一张即可选用。",
  "Image {letter}": "图片 {letter}",
  // Charts
  "Loss": "损失",
  "Error of the predictions, as a share of the direct merge's": "预测误差（直接合并为 1）",
  "below the chart": "低于图表范围",
  // Large pictures
  "Click to see it large": "点击查看大图",
  "One": "单张",
  "Divider": "分割线",
  "Side by side": "并排",
  "Left picture": "左图",
  "Right picture": "右图",
  "{percent} % {left}, then {right}": "左侧 {percent} % 为 {left}，其余为 {right}",
  "Close": "关闭",
  "Compare": "比较",
  "Compare the chosen image with another one": "将选中的图片与另一张比较",
  "Compare images": "比较图片",
  "Select two nodes that show images, and try again.": "请选择两个显示图片的节点，再试一次。",
  "{name}: empty": "{name}：空",
  "{term}: not a number": "{term}：不是数值",
  "content": "主体",
  "style": "风格",
  "penalty": "惩罚",
  "joint": "联合",
  "loss": "损失",
  "error": "误差",
  "instance": "实例",
  "prior": "类别",
  "slider": "滑块",
  "high": "高侧",
  "low": "低侧",
  // Merge map
  "Map of {title}": "{title} 的分布图",
  "The map appears here after a run.": "运行之后，分布图将显示在这里。",
  "What the colours show": "颜色表示什么",
  "how much of the content is kept": "主体保留多少",
  "how much of the style is kept": "风格保留多少",
  "1: as it is": "1：原样",
  "0: independent": "0：互不相关",
  "layer cosine before": "学习前的层余弦",
  "layer cosine after": "学习后的层余弦",
  "mean |m|: content {content}, style {style}": "|m| 均值：主体 {content}，风格 {style}",
  "layer cosine: {before} → {after}": "层余弦：{before} → {after}",
  "Map of the UNet, empty": "UNet 分布图，空",
  "Map of the UNet, {quantity}": "UNet 分布图，{quantity}",
  // Slider control
  "Slider of {title}": "{title} 的滑块",
  "Strength": "强度",
  "When": "时段",
  "Start of the sampling window": "采样区间的起点",
  "End of the sampling window": "采样区间的终点",
  "first step": "第一步",
  "last": "最后一步",
  "on from {start} to {end}": "在 {start} 到 {end} 之间生效",
  "trained {low} to {high}": "训练范围 {low} 到 {high}",
  "beyond the trained {low} to {high}": "超出训练范围 {low} 到 {high}",
  "trained range unknown": "训练范围未知",
  "ends before it starts: it is never on": "终点早于起点，始终不生效",
  "the part of the sampling in which the slider is on": "滑块生效的采样区间",
  "{what}; double-click to reset to {value}": "{what}；双击恢复默认值 {value}",
  "{start} to {end}": "{start} 到 {end}",
  "This number comes from another node.": "这个数值来自另一个节点。",
  "No file is chosen, so the trained range is unknown": "没有选择文件，训练范围未知",
  "The file does not say how far it was trained to be moved.": "文件没有说明训练的范围。",
  "The LoRA does not say how far it was trained to be moved.": "LoRA 没有说明训练的范围。",
  "The trained range appears here after a run.": "运行之后，训练范围将显示在这里。",
  "The trained range could not be read from the server.": "无法从服务器读取训练范围。",
  // Reports
  "Report of {title}": "{title} 的报告",
  "The report appears here after a run.": "运行之后，报告将显示在这里。",
};

/**
 * Translates a string into the language of the page; a string without a translation stays English.
 * @param {string} english with `{name}` as the placeholder of a value
 * @param {Record<string, string | number>} [values]
 */
export function say(english, values = {}) {
  const language = String(app.extensionManager?.setting.get("Comfy.Locale") ?? "en");
  const words = language === "zh" ? CHINESE[english] ?? english : english;
  return words.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}
